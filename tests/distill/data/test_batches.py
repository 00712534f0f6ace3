"""Which photos and captions a step sees."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from nanocap.distill.data.batches import CaptionTable, Schedule, pack
from nanocap.distill.data.corpus import Corpus
from nanocap.distill.data.tokenizer import length_of
from nanocap.distill.recipes.recipe import Recipe
from nanocap.student.controls import END, LENGTH, PAD, PREFIX, QUALITY
from nanocap.student.dimensions import Dimensions


def weighing(recipe: Recipe, weight: float, **changes: object) -> Recipe:
    source = replace(recipe.data.sources[0], weight=weight, **changes)  # type: ignore[arg-type]
    return replace(recipe, data=replace(recipe.data, sources=(source,)))


def test_photos_are_a_pure_function_of_the_step(recipe: Recipe, corpus: Corpus) -> None:
    forward, other = Schedule(recipe, corpus, 0), Schedule(recipe, corpus, 0)
    steps = [forward.photos(step).tolist() for step in range(20)]
    for step in (19, 3, 11, 0, 12):  # a run that resumes never saw the steps before
        assert other.photos(step).tolist() == steps[step]
    assert Schedule(recipe, corpus, 1).photos(0).tolist() != steps[0]
    assert Schedule(replace(recipe, seed=4), corpus, 0).photos(0).tolist() != steps[0]


def test_randomness_belongs_to_its_place(recipe: Recipe, corpus: Corpus) -> None:
    schedule = Schedule(recipe, corpus, 0)
    numbers = {
        float(schedule.random(step, *more).random())
        for step in range(5)
        for more in [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2)]
    }
    assert len(numbers) == 25
    assert schedule.random(3, 1).random() == Schedule(recipe, corpus, 0).random(3, 1).random()


def test_photos_set_aside_are_never_trained_on(recipe: Recipe, corpus: Corpus) -> None:
    schedule = Schedule(recipe, corpus, 0)
    seen = {int(row) for step in range(40) for row in schedule.photos(step)}
    assert seen == set(corpus.training())


@pytest.mark.parametrize("weight", [1.0, 2.0])
def test_whole_weights_are_exact(recipe: Recipe, corpus: Corpus, weight: float) -> None:
    schedule = Schedule(weighing(recipe, weight), corpus, 0)
    assert schedule.epoch_length == 30 * weight
    places = np.concatenate([schedule.photos(step) for step in range(30)])
    for epoch in range(3):
        first = epoch * schedule.epoch_length
        seen = Counter(places[first : first + schedule.epoch_length].tolist())
        assert seen == dict.fromkeys(corpus.training(), int(weight))


def test_fractions_hold_on_average(recipe: Recipe, corpus: Corpus) -> None:
    """Half of the photos weigh 0.5, the others 1.5: they are seen once in four, and three."""
    rows = [
        replace(row, source="light" if index % 2 else "heavy")
        for index, row in enumerate(corpus.rows)
    ]
    mixed = Corpus(corpus.folder)
    mixed.rows = rows
    source = recipe.data.sources[0]
    sources = (replace(source, name="light", weight=0.5), replace(source, name="heavy", weight=1.5))
    schedule = Schedule(replace(recipe, data=replace(recipe.data, sources=sources)), mixed, 0)
    seen = Counter(rows[i].source for step in range(400) for i in schedule.photos(step))
    light = sum(rows[i].source == "light" for i in mixed.training())
    expected = 0.5 * light / (0.5 * light + 1.5 * (30 - light))
    assert seen["light"] / seen.total() == pytest.approx(expected, abs=0.03)


def test_a_batch_larger_than_the_data(recipe: Recipe, corpus: Corpus) -> None:
    stages = (replace(recipe.stages[0], batch=100),)
    schedule = Schedule(replace(weighing(recipe, 1.0), stages=stages), corpus, 0)
    seen = Counter(schedule.photos(0).tolist())
    assert set(seen) == set(corpus.training())
    assert seen.total() == 100


def test_rows_say_quality_and_length(recipe: Recipe, corpus: Corpus) -> None:
    table = CaptionTable(weighing(recipe, 1.0, quality="medium"), corpus, 16)
    told: Counter[str] = Counter()
    for photo in range(36):
        for seed in range(10):
            for row in table.draw(photo, np.random.default_rng(seed), 2):
                assert row[0] == QUALITY["medium"]
                assert row[PREFIX:] in table.ids[photo]
                caption = corpus.rows[photo].captions[table.ids[photo].index(row[PREFIX:])]
                assert row[1] in (LENGTH["any"], LENGTH[length_of(caption)])
                told["any" if row[1] == LENGTH["any"] else "told"] += 1
    assert told["any"] / told.total() == pytest.approx(0.5, abs=0.05)


def test_at_most_so_many_captions_and_no_one_twice(recipe: Recipe, corpus: Corpus) -> None:
    table = CaptionTable(recipe, corpus, 16)
    for most, expected in ((1, 1), (2, 2), (5, 2)):
        rows = table.draw(0, np.random.default_rng(0), most)
        assert len(rows) == expected
        assert len({tuple(row[PREFIX:]) for row in rows}) == expected
    first = {tuple(table.draw(0, np.random.default_rng(seed), 1)[0][2:]) for seed in range(20)}
    assert len(first) == 2  # each has its turn


def test_targets_are_the_next_pieces() -> None:
    high, any_length = QUALITY["high"], LENGTH["any"]
    captions = pack([[high, any_length, 20, 21, END], [high, any_length, 30, END]], [4, 7])
    assert captions.tokens.tolist() == [[high, any_length, 20, 21], [high, any_length, 30, END]]
    # the last control token predicts the first piece; nothing predicts a control token
    assert captions.targets.tolist() == [[PAD, 20, 21, END], [PAD, 30, END, PAD]]
    assert captions.image.tolist() == [4, 7]


def test_every_target_follows_its_input(recipe: Recipe, corpus: Corpus) -> None:
    table = CaptionTable(recipe, corpus, 16)
    rows = [row for photo in range(36) for row in table.draw(photo, np.random.default_rng(1), 2)]
    captions = pack(rows, [0] * len(rows))
    assert captions.tokens.shape[1] <= Dimensions().max_tokens
    for tokens, targets, row in zip(captions.tokens, captions.targets, rows, strict=True):
        pairs = [
            (int(token), int(target))
            for token, target in zip(tokens, targets, strict=True)
            if target != PAD
        ]
        assert pairs == list(pairwise(row[1:]))


def test_an_unfinished_caption_has_no_end_to_learn() -> None:
    captions = pack([[3, 6, 20, 21, 22]], [0])
    assert captions.targets.tolist() == [[PAD, 20, 21, 22]]
