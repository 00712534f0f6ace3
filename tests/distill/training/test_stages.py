"""What a step of each kind asks for."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from nanocap.distill.data.batches import CaptionTable, Schedule
from nanocap.distill.data.corpus import Corpus
from nanocap.distill.recipes.recipe import Recipe
from nanocap.distill.teachers.rollout import to_texts
from nanocap.distill.training.rewards import RepetitionReward
from nanocap.distill.training.stages import STAGES, Context, Target
from nanocap.measure.metrics.cider import Cider
from nanocap.student import Student
from nanocap.student.controls import END, LENGTH, PAD, QUALITY

PHOTOS = [3, 11, 30, 7]
PLACES = [0, 1, 2, 3]


@pytest.fixture
def context(recipe: Recipe, corpus: Corpus) -> Callable[..., Context]:
    """The context of a stage, its source's quality changed if asked for."""

    def make(stage: int, quality: str = "high", mixed: bool = False) -> Context:
        source = replace(recipe.data.sources[0], quality=quality)
        changed = replace(recipe, data=replace(recipe.data, sources=(source,)))
        student = Student(changed.dimensions())
        for parameter in student.decoder.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
        table = CaptionTable(changed, corpus, student.dimensions.max_tokens)
        if mixed:  # every other photo's captions are of low quality
            table.quality = [QUALITY[("high", "low")[i % 2]] for i in range(len(corpus.rows))]
        schedule = Schedule(changed, corpus, stage)
        return Context(changed.stages[stage], corpus, table, schedule, student)

    return make


def target_of(context: Context, step: int = 0, places: list[int] = PLACES) -> Target:
    photos = [PHOTOS[place] for place in places]
    kind = STAGES[context.stage.kind](context)
    inputs = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    return kind.target(step, photos, places, inputs[places], False)


def rows_of(target: Target) -> list[list[int]]:
    """Controls, pieces and end of every row, padding removed."""
    pairs = zip(target.captions.tokens, target.captions.targets, strict=True)
    return [[int(tokens[0]), int(tokens[1]), *drop_padding(targets)] for tokens, targets in pairs]


def drop_padding(targets: Tensor) -> list[int]:
    return [token for token in targets.tolist() if token != PAD]


def test_supervised_asks_for_the_captions_of_each_photo(context: Callable[..., Context]) -> None:
    here = context(0)
    target = target_of(here)
    for row, image in zip(rows_of(target), target.captions.image.tolist(), strict=True):
        assert row[0] == QUALITY["high"]
        assert row[2:] in here.table.ids[PHOTOS[image]]
    assert target.captions.image.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert target.advantage.tolist() == [1.0] * 8
    assert target.smoothing == here.stage.label_smoothing
    assert target.count == sum(len(row) - 2 for row in rows_of(target))
    assert target.metrics == {}


def test_a_process_asks_for_its_places_as_the_whole_would(context: Callable[..., Context]) -> None:
    whole, first, second = (target_of(context(0), 5, p) for p in ([0, 1, 2, 3], [0, 2], [1, 3]))
    rows = rows_of(whole)
    assert rows_of(first) == rows[0:2] + rows[4:6]
    assert rows_of(second) == rows[2:4] + rows[6:8]
    assert first.count + second.count == whole.count


def test_steps_draw_differently(context: Callable[..., Context]) -> None:
    assert len({str(rows_of(target_of(context(0), step))) for step in range(5)}) > 1


def test_self_critical_weighs_samples_by_how_much_better_than_their_peers_they_are(
    context: Callable[..., Context],
) -> None:
    here = context(2)
    target = target_of(here)
    count, rows = here.stage.samples, rows_of(target)
    drawn, written = rows[: 4 * count], rows[4 * count :]
    assert target.captions.image.tolist() == [i // count for i in range(4 * count)] + [
        *(0, 0, 1, 1, 2, 2, 3, 3)
    ]
    assert all(row[:2] == [QUALITY["high"], LENGTH["any"]] for row in drawn)
    corpus = here.corpus
    cider = Cider([corpus.rows[index].captions for index in corpus.training()])
    texts = to_texts(corpus.tokenizer, [row[2:] for row in drawn])
    rewards = [
        cider.score(t, corpus.rows[PHOTOS[i // count]].captions) for i, t in enumerate(texts)
    ]
    assert target.metrics["reward"] == pytest.approx(sum(rewards) / len(rewards), abs=1e-6)
    for index, reward in enumerate(rewards):
        first = index // count * count
        others = [rewards[i] for i in range(first, first + count) if i != index]
        expected = reward - sum(others) / len(others)
        assert target.advantage[index].item() == pytest.approx(expected, abs=1e-5)
    for photo in range(4):  # so photos on which all samples are alike teach nothing
        share = target.advantage[photo * count : photo * count + count]
        assert share.sum().item() == pytest.approx(0.0, abs=1e-5)
    assert all(row[2:] in here.table.ids[PHOTOS[i // 2]] for i, row in enumerate(written))
    assert target.smoothing == 0.0


def test_self_critical_keeps_its_share_of_cross_entropy(context: Callable[..., Context]) -> None:
    here = context(2)
    target = target_of(here)
    drawn = 4 * here.stage.samples
    lengths = [len(row) - 2 for row in rows_of(target)]
    assert target.count == sum(lengths[:drawn])
    weights = target.advantage[drawn:]
    assert len(weights) == 8
    # divided by the count of sampled pieces, what people wrote weighs its share
    total = float((weights * torch.tensor(lengths[drawn:])).sum())
    assert total / target.count == pytest.approx(here.stage.cross_entropy, rel=1e-5)


def test_captions_of_low_quality_are_not_drawn_towards(context: Callable[..., Context]) -> None:
    here = context(2, mixed=True)
    target = target_of(here)
    count, images = here.stage.samples, target.captions.image.tolist()
    high = [index for index, photo in enumerate(PHOTOS) if photo % 2 == 0]
    drawn = len(high) * count
    assert images[:drawn] == [index for index in high for _ in range(count)]
    assert sorted(set(images[drawn:])) == [0, 1, 2, 3]  # all stay supervised
    without = target_of(context(2, quality="low"))
    assert without.metrics == {}
    assert without.count == sum(len(row) - 2 for row in rows_of(without))
    assert without.advantage.tolist() == pytest.approx([here.stage.cross_entropy] * 8)


def test_samples_end_or_are_cut(context: Callable[..., Context]) -> None:
    here = context(2)
    for row in rows_of(target_of(here)):
        assert END not in row[2:-1]
        assert len(row) <= here.student.dimensions.max_tokens + 1


def test_no_gradient_is_kept_for_sampling(context: Callable[..., Context]) -> None:
    here = context(2)
    target = target_of(here)
    assert not target.advantage.requires_grad
    assert all(parameter.grad is None for parameter in here.student.parameters())


def test_sources_that_reward_nothing_stay_supervised(context: Callable[..., Context]) -> None:
    here = context(2)
    odd = {photo for photo in PHOTOS if photo % 2}
    corpus = copy.copy(here.corpus)  # which other tests share
    corpus.rows = [
        replace(row, source="web") if index in odd else row for index, row in enumerate(corpus.rows)
    ]
    here = replace(here, corpus=corpus, stage=replace(here.stage, rewarded=("shapes",)))
    target = target_of(here)
    count, images = here.stage.samples, target.captions.image.tolist()
    rewarded = [index for index, photo in enumerate(PHOTOS) if photo not in odd]
    drawn = len(rewarded) * count
    assert images[:drawn] == [index for index in rewarded for _ in range(count)]
    assert images[drawn:] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert all(row[0] == QUALITY["high"] for row in rows_of(target))


def test_repetition_lowers_what_a_sample_is_worth(context: Callable[..., Context]) -> None:
    here = context(2)
    here = replace(here, stage=replace(here.stage, samples=24))
    torch.manual_seed(7)
    before = target_of(here)
    torch.manual_seed(7)
    after = target_of(replace(here, stage=replace(here.stage, repetition=2.0)))
    rows = rows_of(after)[: 4 * here.stage.samples]
    assert rows == rows_of(before)[: len(rows)]  # the same draws
    texts = to_texts(here.corpus.tokenizer, [row[2:] for row in rows])
    cost = RepetitionReward(here.corpus).score(texts, [])
    assert cost.min() < 0  # these students babble
    assert after.metrics["repeats"] == pytest.approx(cost.mean())
    shares = torch.from_numpy(2.0 * cost).float().reshape(4, -1)
    peers = (shares.sum(1, keepdim=True) - shares) / (shares.shape[1] - 1)
    changed = (after.advantage - before.advantage)[: len(rows)]
    torch.testing.assert_close(changed, (shares - peers).flatten(), atol=1e-5, rtol=0)
