"""The search against one in numpy and one in plain Python, and what must hold for any model."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from nanocap.convert.graphs.joining import SearchGraphs
from nanocap.convert.graphs.modules import CACHES, SearchBegin, Sizes
from nanocap.distill.teachers.rollout import drawn
from nanocap.errors import OptionError
from nanocap.runtime.engines.onnx import NEW
from nanocap.student.controls import PREFIX
from nanocap.student.layers import NEVER
from nanocap.student.repeats import RepeatRule
from nanocap.student.search import CONSTANT, Search, SearchState

from .oracle import Hypothesis, Options, Repeats, search_all

PAD, END, BAD = 0, 1, 2
PIECES = "<pad> <end> <bad> ▁a b ▁and c ▁or d".split()
QUALITY, LENGTH = torch.tensor([BAD]), torch.tensor([PAD])
Table = npt.NDArray[np.float64]


def tables(seed: int, images: int = 1, vocabulary: int = 6) -> Table:
    """A language model of each image: logits by the two last ids, `PAD` before the first."""
    rng = np.random.default_rng(seed)
    return rng.normal(scale=2.0, size=(images, *[vocabulary] * 3))


def make(beams: int = 3, **changes: Any) -> Options:
    defaults = {"length_penalty": 1.0, "longest": 8, "end": END, "never": (PAD, BAD)}
    return Options(beams=beams, **{**defaults, **changes})


def module(options: Options, vocabulary: int = 6, **changes: Any) -> Search:
    rule = RepeatRule(PIECES[:vocabulary]) if options.repeats else None
    return Search(vocabulary, options.longest, END, PAD, options.never, rule, **changes).eval()


def steps(
    search: Search | OnnxSearch,
    table: Table,
    options: Options,
    change: Callable[[SearchState], SearchState] = lambda state: state,
) -> Iterator[SearchState]:
    """The state after each step, until no photo goes on; `change` is made before the first."""
    images, beams = len(table), options.beams
    penalty = torch.tensor([options.length_penalty])
    state = change(search.begin(images, beams, QUALITY, LENGTH, penalty))
    logits = torch.from_numpy(table).float()
    photo = torch.arange(images).repeat_interleave(beams)
    past = torch.zeros(images * beams, 2, dtype=torch.int64)  # moves between rows as caches do
    while state.going.any():
        if state.position >= PREFIX:
            past = torch.cat([past[:, 1:], state.tokens.reshape(-1, 1)], 1)
        said = logits[photo, past[:, 0], past[:, 1]].reshape(images, beams, -1)
        state, rows = search.step(state, said)
        past = past[rows]
        yield state


def found(state: SearchState) -> list[list[Hypothesis]]:
    """The answers of each photo, best first."""
    return [
        [
            Hypothesis(
                tuple(i for i in ids.tolist() if i != PAD),
                tuple(logs[: int((ids != PAD).sum())].tolist()),
                float(score),
            )
            for score, ids, logs in zip(*answers, strict=True)
            if score > NEVER / 2
        ]
        for answers in zip(
            state.answer_scores, state.answer_ids, state.answer_log_probabilities, strict=True
        )
    ]


def searched(table: Table, options: Options, **changes: Any) -> list[list[Hypothesis]]:
    *_, last = steps(module(options, table.shape[-1], **changes), table, options)
    return found(last)


def same(first: Sequence[Hypothesis], second: Sequence[Hypothesis]) -> bool:
    """The same ids in the same order, and the same numbers but for float32's rounding."""
    return [one.ids for one in first] == [one.ids for one in second] and all(
        ours.score == pytest.approx(theirs.score, rel=1e-4, abs=1e-5)
        and ours.log_probabilities == pytest.approx(theirs.log_probabilities, rel=1e-4, abs=1e-5)
        for ours, theirs in zip(first, second, strict=True)
    )


def log_probabilities(table: Table, ids: tuple[int, ...], options: Options) -> list[float]:
    """Of each next id after `ids`, in plain Python."""
    before, last = (PAD, PAD, *ids)[-2:]
    barred = {*options.never, *(() if ids else (END,))}
    logits = [-math.inf if i in barred else float(x) for i, x in enumerate(table[before, last])]
    total = math.log(sum(math.exp(x) for x in logits))
    again = options.repeats.barred(ids) if options.repeats else ()
    return [-math.inf if i in again else x - total for i, x in enumerate(logits)]


def plain_search(table: Table, options: Options) -> tuple[list[Hypothesis], float]:
    """Beam search for one image with lists and loops: its answers, best first, and by how little
    the closest two scores differed that it compared. Float32 may order those the other way."""
    beams: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    ended: list[tuple[float, tuple[int, ...]]] = []
    margin = math.inf
    for length in range(1, options.longest + 1):
        candidates = [
            (total + step, (*ids, i))
            for total, ids in beams
            for i, step in enumerate(log_probabilities(table, ids, options))
            if total + step > -math.inf
        ]
        candidates.sort(key=lambda c: -c[0])
        norm = length**options.length_penalty
        closest = [total / norm for total, _ in candidates[: 2 * options.beams + 1]]
        first = candidates[: options.beams]
        ended += [(total / norm, ids) for total, ids in first if ids[-1] == END]
        ended.sort(key=lambda c: -c[0])
        margin = min([margin, *gaps(closest), *gaps([score for score, _ in ended])])
        candidates = candidates[: 2 * options.beams]
        beams = [c for c in candidates if c[1][-1] != END][: options.beams]
        ended = ended[: options.beams]
        if not beams:
            break
        if len(ended) == options.beams:
            margin = min(margin, abs(beams[0][0] / norm - ended[-1][0]))
            if beams[0][0] / norm <= ended[-1][0]:
                break
    answers = ended or [(total / norm, ids) for total, ids in beams]
    return [Hypothesis(ids, logs_of(table, ids, options), score) for score, ids in answers], margin


def gaps(descending: list[float]) -> list[float]:
    return [first - second for first, second in itertools.pairwise(descending)]


def logs_of(table: Table, ids: tuple[int, ...], options: Options) -> tuple[float, ...]:
    return tuple(log_probabilities(table, ids[:i], options)[ids[i]] for i in range(len(ids)))


def best_of_all(table: Table, options: Options) -> tuple[tuple[int, ...], float]:
    """The best of every sequence that ends within `longest`, by trying them all."""
    pieces = [i for i in range(len(table)) if i not in (END, *options.never)]
    best: tuple[tuple[int, ...], float] = ((), -math.inf)
    for count in range(1, options.longest):
        for text in itertools.product(pieces, repeat=count):
            ids = (*text, END)
            score = sum(logs_of(table, ids, options)) / len(ids) ** options.length_penalty
            best = max(best, (ids, score), key=lambda one: one[1])
    return best


searches = st.builds(
    make,
    beams=st.integers(1, 8),
    length_penalty=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    longest=st.integers(1, 9),
    repeats=st.sampled_from([None, Repeats.of(PIECES)]),
)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    options=searches,
    images=st.integers(1, 3),
    vocabulary=st.integers(4, len(PIECES)),
)
def test_the_search_equals_numpy_and_plain_python(
    seed: int, options: Options, images: int, vocabulary: int
) -> None:
    table = tables(seed, images, vocabulary)
    plain = [plain_search(each, options) for each in table]
    assume(min(margin for _, margin in plain) > 1e-4)

    def model(live: Any, ids: Any) -> Any:
        before = np.pad(ids, ((0, 0), (0, 0), (2, 0)))[..., -2:]
        return table[live[:, None], before[..., 0], before[..., 1]]

    numpy = search_all(model, images, options)
    for ours, theirs, (expected, _) in zip(searched(table, options), numpy, plain, strict=True):
        assert 0 < len(expected) <= options.beams
        assert same(ours, expected)
        assert same(theirs, expected)


@pytest.mark.parametrize("penalty", [0.0, 1.0, 1.5])
@pytest.mark.parametrize("seed", range(5))
def test_with_room_for_every_hypothesis_the_best_of_all_is_found(seed: int, penalty: float) -> None:
    options = make(beams=3**4, longest=5, length_penalty=penalty)
    table = tables(seed)
    ids, score = best_of_all(table[0], options)
    best = searched(table, options)[0][0]
    assert best.ids == ids
    assert best.score == pytest.approx(score, rel=1e-4)


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10_000), options=searches, images=st.integers(1, 6))
def test_a_batch_equals_one_by_one(seed: int, options: Options, images: int) -> None:
    table = tables(seed, images)
    assume(min(plain_search(each, options)[1] for each in table) > 1e-4)
    alone = [searched(table[i : i + 1], options)[0] for i in range(images)]
    assert all(map(same, searched(table, options), alone))


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10_000), longest=st.integers(1, 9))
def test_one_beam_takes_the_likeliest_piece(seed: int, longest: int) -> None:
    table, options = tables(seed), make(beams=1, longest=longest)
    ids: tuple[int, ...] = ()
    while len(ids) < longest and END not in ids:
        ids = (*ids, int(np.argmax(log_probabilities(table[0], ids, options))))
    ((greedy,),) = searched(table, options)
    assert greedy.ids == ids
    assert greedy.log_probabilities == pytest.approx(logs_of(table[0], ids, options), abs=1e-5)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000), options=searches)
def test_what_holds_for_every_hypothesis(seed: int, options: Options) -> None:
    for answers in searched(tables(seed, images=3), options):
        scores = [one.score for one in answers]
        assert scores == sorted(scores, reverse=True)
        assert len({one.ids for one in answers}) == len(answers), "no sequence twice"
        ended = [one.ids[-1] == END for one in answers]
        assert all(ended) or not any(ended), "beams without an end count where nothing ended"
        for one in answers:
            assert 1 <= len(one.ids) == len(one.log_probabilities) <= options.longest
            assert one.ids[0] != END, "an empty caption"
            assert not {PAD, BAD} & set(one.ids), "an id that is never generated"
            assert END not in one.ids[:-1]
            assert one.ids[-1] == END or len(one.ids) == options.longest
            assert max(one.log_probabilities) <= 1e-6
            norm = len(one.ids) ** options.length_penalty
            assert one.score == pytest.approx(sum(one.log_probabilities) / norm, rel=1e-4, abs=1e-5)


def test_a_photo_that_is_done_stays_as_it_is_while_others_go_on() -> None:
    table = np.zeros((2, 6, 6, 6))
    table[0, ..., END] = 50.0  # the first photo ends at once, the second never
    table[1, ..., END] = -50.0
    options = make(beams=1, longest=6)
    states = list(steps(module(options), table, options))
    assert [state.going.tolist() for state in states] == [
        *[[True, True]] * 2,
        *[[False, True]] * 4,
        [False, False],
    ]
    for state in states[2:]:
        assert found(state)[0] == found(states[2])[0]
    (short,), (long,) = found(states[-1])
    assert (len(short.ids), len(long.ids)) == (2, 6)
    assert END not in long.ids


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), options=searches, photos=st.permutations(range(4)))
def test_some_of_the_photos_go_on_as_they_would_have(
    seed: int, options: Options, photos: list[int]
) -> None:
    """Photos leave a batch; those that are left find the same."""
    some, table = photos[: 1 + seed % 4], tables(seed, images=4)
    assume(min(plain_search(each, options)[1] for each in table) > 1e-4)
    search = module(options)
    together = list(steps(search, table, options))
    at = together[seed % len(together)]
    for bias in (at.bias, torch.zeros(())):
        chosen = at._replace(bias=bias).some(torch.tensor(some))
        assert chosen.bias.shape == (() if bias.dim() == 0 else (len(some), *bias.shape[1:]))
        assert chosen.position == at.position
        assert found(chosen) == [found(at)[photo] for photo in some]
    *_, last = steps(search, table[some], options)
    assert all(map(same, found(last), [found(together[-1])[photo] for photo in some]))


def test_a_length_penalty_favours_longer_captions() -> None:
    table = tables(3, images=40)
    lengths = [
        np.mean([len(a[0].ids) for a in searched(table, make(beams=5, length_penalty=p))])
        for p in (0.0, 1.0, 2.0)
    ]
    assert lengths[0] < lengths[1] < lengths[2]


def test_more_beams_than_there_are_continuations() -> None:
    table = tables(0, vocabulary=4)  # padding, end, barred, and a single piece
    (answers,) = searched(table, make(beams=8, longest=5))
    assert [one.ids for one in sorted(answers, key=lambda one: len(one.ids))] == [
        (*[3] * count, END) for count in range(1, 5)
    ]
    endless = make(beams=8, longest=2, length_penalty=2.0, never=(PAD, BAD, END))
    (answers,) = searched(tables(0, vocabulary=5), endless)
    assert {one.ids for one in answers} == set(itertools.product((3, 4), repeat=2))
    assert len(answers) == 4


@pytest.mark.parametrize("where", [(), (PAD, PAD, 3)])
def test_a_photo_without_numbers_has_no_answer_and_leaves_the_others_alone(
    where: tuple[int, ...],
) -> None:
    table, options = tables(0, images=3), make()
    table[(1, *where)] = np.nan
    before, nothing, behind = searched(table, options)
    assert nothing == []
    alone = searched(table[[0, 2]], options)
    assert same(before, alone[0])
    assert same(behind, alone[1])


def test_a_bias_counts_where_captions_are_compared_and_not_in_what_is_reported() -> None:
    table, options, favoured, avoided = tables(1, images=20), make(), 3, 4
    plain = searched(table, options)
    said = [piece for (best, *_) in plain for piece in best.ids]
    assert {favoured, avoided} <= set(said)

    def biased(state: SearchState) -> SearchState:
        bias = state.bias.clone()
        bias[..., favoured], bias[..., avoided] = 3.0, NEVER
        return state._replace(bias=bias)

    *_, last = steps(module(options), table, options, biased)
    changed = found(last)
    assert not any(avoided in one.ids for answers in changed for one in answers)
    again = [piece for (best, *_) in changed for piece in best.ids]
    assert again.count(favoured) > said.count(favoured)
    for each, answers in zip(table, changed, strict=True):
        for one in answers:
            expected = logs_of(each, one.ids, options)
            assert one.log_probabilities == pytest.approx(expected, rel=1e-4, abs=1e-5)
            total = sum(expected) + 3.0 * one.ids.count(favoured)
            assert one.score == pytest.approx(total / len(one.ids), rel=1e-3, abs=1e-4)
    *_, number = steps(
        module(options), table, options, lambda state: state._replace(bias=torch.zeros(()))
    )
    assert found(number) == plain, "one number for all"


def test_a_sampler_draws_by_the_probabilities() -> None:
    draws, options = 4000, make(beams=1, longest=3)
    table = tables(11).repeat(draws, 0)
    captions = [answers[0].ids for answers in searched(table, options, choice=drawn)]
    for past in ((), (3,), (5,)):
        behind = [ids[len(past)] for ids in captions if ids[: len(past)] == past]
        assert len(behind) > 200
        expected = np.exp(log_probabilities(table[0], past, options))
        shares = np.bincount(behind, minlength=6) / len(behind)
        np.testing.assert_allclose(shares, expected, atol=4 * (0.25 / len(behind)) ** 0.5)
        assert (shares[expected == 0] == 0).all()
    for one in itertools.chain.from_iterable(searched(table[:50], options, choice=drawn)):
        expected = logs_of(table[0], one.ids, options)
        assert one.log_probabilities == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_more_pieces_than_floats_can_count() -> None:
    Search(1 << 18, 3, END, PAD, ())
    with pytest.raises(OptionError, match="counts in floats: 262145 pieces are too many"):
        Search((1 << 18) + 1, 3, END, PAD, ())


class OnnxSearch:
    """The traced graphs, called as the module is."""

    def __init__(self, sizes: Sizes, search: Search) -> None:
        graphs = SearchGraphs.trace(sizes, search)
        self.sizes = sizes
        self.first, self.further = (
            onnxruntime.InferenceSession(each.SerializeToString())
            for each in (graphs.first, graphs.further)
        )

    def begin(
        self, images: int, beams: int, quality: Tensor, length: Tensor, length_penalty: Tensor
    ) -> SearchState:
        seen = torch.zeros(
            self.sizes.layers, images, self.sizes.visual_tokens, self.sizes.cross_width
        )
        values = (seen, torch.arange(beams), quality, length, length_penalty)
        feeds = {n: v.numpy() for n, v in zip(SearchBegin.inputs, values, strict=True)}
        state = self.first.run(SearchBegin.outputs, feeds)
        for cache in state[-len(CACHES) :]:
            rows, positions = images * beams, 0  # they grow
            assert cache.shape == (self.sizes.layers, rows, positions, self.sizes.cache_width)
            assert not cache.any()
        return SearchState(*map(torch.from_numpy, state[: -len(CACHES)]))

    def step(self, state: SearchState, logits_BKV: Tensor) -> tuple[SearchState, Tensor]:
        shape = (self.sizes.layers, state.tokens.numel(), self.sizes.max_tokens, 1)
        rows = torch.arange(shape[1]).reshape(1, -1, 1, 1)  # a cache that says which row it is of
        keys = rows.float().expand(*shape[:3], self.sizes.cache_width)
        feeds = {**state._asdict(), "logits": logits_BKV, "written_keys": keys}
        feeds["written_values"] = -keys
        moving = [name for name in SearchState._fields if name not in CONSTANT]
        outputs = [f"{NEW}{name}" for name in (*moving, *CACHES)]
        taken = {given.name for given in self.further.get_inputs()}
        *moved, keys, values = map(
            torch.from_numpy,
            self.further.run(outputs, {n: v.numpy() for n, v in feeds.items() if n in taken}),
        )
        assert torch.equal(values, -keys)
        assert torch.equal(keys, keys[:1, :, :1, :1].expand_as(keys))
        return state._replace(**dict(zip(moving, moved, strict=True))), keys[0, :, 0, 0].long()


@pytest.fixture(scope="module")
def traced() -> OnnxSearch:
    options = make(repeats=Repeats.of(PIECES))
    sizes = Sizes(2, 5, options.longest + 1, 4, 3, 32)
    return OnnxSearch(sizes, module(options, len(PIECES)))


@pytest.mark.parametrize("images", [1, 2, 5])
@pytest.mark.parametrize("beams", [1, 3, 8])
def test_the_traced_graphs_search_as_the_module_does(
    images: int, beams: int, traced: OnnxSearch
) -> None:
    """Of any number of photos and beams; what differs is the order of what is not there."""
    table = tables(3, images, len(PIECES))
    for penalty in (0.0, 1.0, 2.0):
        options = make(beams, length_penalty=penalty, repeats=Repeats.of(PIECES))
        assert min(plain_search(each, options)[1] for each in table) > 1e-5
        pairs = zip(
            steps(module(options, len(PIECES)), table, options),
            steps(traced, table, options),
            strict=True,
        )
        for eager, onnx in pairs:
            assert all(map(same, found(onnx), found(eager)))
            assert torch.equal(onnx.going, eager.going)
            assert torch.equal(onnx.position, eager.position)
            alive = eager.totals > NEVER / 2
            torch.testing.assert_close(onnx.totals[alive], eager.totals[alive])
            for name in ("tokens", "ids"):
                assert torch.equal(getattr(onnx, name)[alive], getattr(eager, name)[alive]), name


def test_the_traced_graphs_take_a_bias(traced: OnnxSearch) -> None:
    options, table = make(2, repeats=Repeats.of(PIECES)), tables(4, 3, len(PIECES))

    def biased(state: SearchState) -> SearchState:
        bias = state.bias.clone()
        bias[..., 3] = NEVER
        return state._replace(bias=bias)

    *_, plain = steps(traced, table, options)
    *_, without = steps(traced, table, options, biased)
    *_, eager = steps(module(options, len(PIECES)), table, options, biased)
    assert any(3 in one.ids for answers in found(plain) for one in answers)
    assert not any(3 in one.ids for answers in found(without) for one in answers)
    assert all(map(same, found(without), found(eager)))
