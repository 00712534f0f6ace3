"""The vectorised search against plain Python, and what must hold for any model."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanocap.errors import EngineError, OptionError
from nanocap.runtime.decoding import Hypothesis, Search, greedy, search, search_all

PAD, END, BAD = 0, 1, 2


class Trigram:
    """A language model from tables: each image has its own, indexed by the two last ids."""

    def __init__(self, tables: npt.NDArray[np.float64]) -> None:
        self.tables = tables  # [B, V, V, V]
        self.rows = np.arange(len(tables))  # which table each live image has
        self.history: npt.NDArray[np.int64] = np.zeros((len(tables), 1, 2), dtype=np.int64)
        self.sizes: list[int] = []  # images in each step

    def start(self) -> npt.NDArray[np.float64]:
        return self.tables[self.rows, PAD, PAD]

    def step(
        self,
        tokens: npt.NDArray[np.int64],
        parents: npt.NDArray[np.int64],
        images: npt.NDArray[np.int64] | None,
    ) -> npt.NDArray[np.float64]:
        if images is not None:
            self.rows, self.history = self.rows[images], self.history[images]
        past = np.take_along_axis(self.history, parents[..., None], axis=1)  # [B, K, 2]
        self.history = np.concatenate([past[..., 1:], tokens[..., None]], axis=2)
        self.sizes.append(len(tokens))
        logits: npt.NDArray[np.float64] = self.tables[
            self.rows[:, None], self.history[..., 0], self.history[..., 1]
        ]
        return logits


def tables(seed: int, images: int = 1, vocabulary: int = 6) -> npt.NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    return rng.normal(scale=2.0, size=(images, *[vocabulary] * 3))


def log_probabilities(
    table: npt.NDArray[np.float64], ids: tuple[int, ...], never: tuple[int, ...]
) -> list[float]:
    """Of each next id after `ids`, in plain Python."""
    before, last = (PAD, PAD, *ids)[-2:]
    barred = {*never, *(() if ids else (END,))}
    logits = [-math.inf if i in barred else float(x) for i, x in enumerate(table[before, last])]
    total = math.log(sum(math.exp(x) for x in logits))
    return [x - total for x in logits]


def plain_search(
    table: npt.NDArray[np.float64], options: Search
) -> list[tuple[tuple[int, ...], float]]:
    """Beam search for one image with lists and loops; returns ids and scores, best first."""
    beams: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    ended: list[tuple[float, tuple[int, ...]]] = []
    for length in range(1, options.max_length + 1):
        candidates = []
        for total, ids in beams:
            steps = log_probabilities(table, ids, options.never)
            candidates += [(total + step, (*ids, i)) for i, step in enumerate(steps)]
        candidates = [c for c in candidates if c[0] > -math.inf]
        candidates.sort(key=lambda c: -c[0])
        norm = length**options.length_penalty
        first = candidates[: options.beams]
        ended += [(total / norm, ids) for total, ids in first if ids[-1] == END]
        candidates = candidates[: 2 * options.beams]
        beams = [c for c in candidates if c[1][-1] != END][: options.beams]
        ended = sorted(ended, key=lambda c: -c[0])[: options.beams]
        if not beams:
            break
        if len(ended) == options.beams and beams[0][0] / norm <= ended[-1][0]:
            break
    if ended:
        return [(ids, score) for score, ids in ended]
    return [(ids, total / norm) for total, ids in beams]


def best_of_all(table: npt.NDArray[np.float64], options: Search) -> tuple[tuple[int, ...], float]:
    """The best of every sequence that ends within `max_length`, by trying them all."""
    pieces = [i for i in range(len(table)) if i not in (END, *options.never)]
    best: tuple[tuple[int, ...], float] = ((), -math.inf)
    for count in range(1, options.max_length):
        for text in itertools.product(pieces, repeat=count):
            ids = (*text, END)
            total = sum(
                log_probabilities(table, ids[:i], options.never)[ids[i]] for i in range(len(ids))
            )
            score = total / len(ids) ** options.length_penalty
            best = max(best, (ids, score), key=lambda found: found[1])
    return best


def make(beams: int = 3, **changes: Any) -> Search:
    defaults = {"length_penalty": 1.0, "max_length": 8, "end": END, "never": (PAD, BAD)}
    return Search(beams=beams, **{**defaults, **changes})


searches = st.builds(
    make,
    beams=st.integers(1, 5),
    length_penalty=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    max_length=st.integers(1, 9),
)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10_000), options=searches, vocabulary=st.integers(4, 9))
def test_search_equals_plain_python(seed: int, options: Search, vocabulary: int) -> None:
    table = tables(seed, vocabulary=vocabulary)
    plain = plain_search(table[0], options)
    found = search(Trigram(table), options)[0]
    assert (found.ids, found.score) == (plain[0][0], pytest.approx(plain[0][1]))
    every = search_all(Trigram(table), replace(options, n_best=options.beams))[0]
    assert [one.ids for one in every] == [ids for ids, _ in plain]
    assert [one.score for one in every] == pytest.approx([score for _, score in plain])
    some = search_all(Trigram(table), replace(options, n_best=(options.beams + 1) // 2))[0]
    assert some == every[: (options.beams + 1) // 2]
    assert some[0] == found


@pytest.mark.parametrize("penalty", [0.0, 1.0, 1.5])
@pytest.mark.parametrize("seed", range(5))
def test_with_room_for_every_hypothesis_the_best_of_all_is_found(seed: int, penalty: float) -> None:
    options = make(beams=3**4, max_length=5, length_penalty=penalty)
    table = tables(seed)
    ids, score = best_of_all(table[0], options)
    found = search(Trigram(table), options)[0]
    assert found.ids == ids
    assert found.score == pytest.approx(score)


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10_000), options=searches, images=st.integers(1, 6))
def test_a_batch_equals_one_by_one(seed: int, options: Search, images: int) -> None:
    table = tables(seed, images)
    alone = [search(Trigram(table[i : i + 1]), options)[0] for i in range(images)]
    assert search(Trigram(table), options) == alone


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10_000), length=st.integers(1, 9))
def test_one_beam_equals_greedy(seed: int, length: int) -> None:
    table, options = tables(seed), make(beams=1, max_length=length)
    found = search(Trigram(table), options)[0]
    pairs = list(greedy(Trigram(table), options))
    assert tuple(i for i, _ in pairs) == found.ids
    assert [log for _, log in pairs] == pytest.approx(list(found.log_probabilities))


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000), options=searches)
def test_what_holds_for_every_hypothesis(seed: int, options: Search) -> None:
    found: Hypothesis
    for found in search(Trigram(tables(seed, images=3)), options):
        assert 1 <= len(found.ids) == len(found.log_probabilities) <= options.max_length
        assert found.ids[0] != END, "an empty caption"
        assert not {PAD, BAD} & set(found.ids), "an id that is never generated"
        assert found.ended == (found.ids[-1] == END)
        assert END not in found.ids[:-1]
        assert max(found.log_probabilities) <= 1e-9
        norm = len(found.ids) ** options.length_penalty
        assert found.score == pytest.approx(sum(found.log_probabilities) / norm)


def test_images_that_are_done_leave_the_batch() -> None:
    table = np.zeros((2, 6, 6, 6))
    table[0, ..., END] = 50.0  # the first image ends at once, the second never
    table[1, ..., END] = -50.0
    model = Trigram(table)
    short, long = search(model, make(beams=1, max_length=6))
    assert (len(short.ids), short.ended) == (2, True)
    assert (len(long.ids), long.ended) == (6, False)
    assert model.sizes == [2, 1, 1, 1, 1]


def test_a_length_penalty_favours_longer_captions() -> None:
    table = tables(3, images=40)
    lengths = [
        np.mean([len(h.ids) for h in search(Trigram(table), make(beams=5, length_penalty=p))])
        for p in (0.0, 1.0, 2.0)
    ]
    assert lengths[0] < lengths[1] < lengths[2]


def test_more_beams_than_there_are_continuations() -> None:
    table = tables(0, vocabulary=4)  # padding, end, barred, and a single piece
    found = search(Trigram(table), make(beams=4, max_length=5))[0]
    assert set(found.ids) <= {3, END}


def test_a_model_that_gives_no_numbers_is_refused() -> None:
    table = tables(0)
    table[0, PAD, PAD, 3] = np.nan
    with pytest.raises(EngineError, match="no numbers"):
        search(Trigram(table), make())


@pytest.mark.parametrize(
    "changes",
    [
        {"beams": 0},
        {"length_penalty": -1.0},
        {"max_length": 0},
        {"length_penalty": np.nan},
        {"n_best": 0},
    ],
)
def test_options_that_cannot_be(changes: dict[str, Any]) -> None:
    name = next(iter(changes))
    with pytest.raises(
        OptionError, match=f"^{name} must be (at least [01], got|a number, got nan)"
    ):
        make(**changes)


def test_no_more_hypotheses_than_beams() -> None:
    with pytest.raises(OptionError, match=r"n_best must be at most the number of beams, 3, got 4"):
        make(beams=3, n_best=4)
