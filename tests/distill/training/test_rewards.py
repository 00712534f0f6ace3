"""Rewards beyond people's captions, and the floor that stops them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nanocap.distill.data.corpus import Corpus
from nanocap.distill.recipes.recipe import Recipe
from nanocap.distill.teachers.similarity import ImageTextScorer
from nanocap.distill.training.monitor import Floor, Monitor
from nanocap.distill.training.rewards import (
    CiderReward,
    RepetitionReward,
    RetrievalReward,
    TruthReward,
    WornReward,
)
from nanocap.errors import RecipeError
from nanocap.scorer import Scorer, ScorerDimensions
from nanocap.student import Student

TEXTS = ["a red circle", "a blue square on green", "a red circle", "before yellow"]
PHOTOS = [4, 9, 4, 20]


@pytest.fixture
def scorer_file(recipe: Recipe, corpus: Corpus, tmp_path: Path) -> Path:
    """A scorer that knows nothing."""
    torch.manual_seed(4)
    sizes = {"width": 32, "heads": 2, "layers": 1, "embedding": 16, "matching": 8}
    scorer = Scorer(ScorerDimensions(recipe.dimensions(), **sizes))
    path = tmp_path / "scorer.safetensors"
    scorer.save(path, {"tokenizer": corpus.tokenizer.to_str()})
    return path


def test_retrieval_is_the_share_of_the_own_photo(scorer_file: Path, corpus: Corpus) -> None:
    scorer = ImageTextScorer.load(scorer_file)
    found = RetrievalReward(corpus, scorer).score(TEXTS, PHOTOS)
    batch = [4, 9, 20]
    cosines = scorer.score([corpus.photo(photo) for photo in batch], TEXTS).T.astype(np.float64)
    scale = scorer.scorer.scales()[0].item()
    odds = np.exp(scale * cosines)
    shares = odds / odds.sum(1, keepdims=True)
    expected = [shares[0, 0], shares[1, 1], shares[2, 0], shares[3, 2]]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert found[0] == pytest.approx(found[2])  # the same words about the same photo
    assert 0 < found.min() < found.max() < 1


def test_a_photo_alone_is_always_found(scorer_file: Path, corpus: Corpus) -> None:
    reward = RetrievalReward(corpus, ImageTextScorer.load(scorer_file))
    np.testing.assert_allclose(reward.score(["a b", "c"], [7, 7]), [1.0, 1.0])


def test_an_object_that_nobody_named_costs_one(corpus: Corpus) -> None:
    photo = next(i for i in corpus.training() if "square" in corpus.rows[i].captions[0])
    other = next(i for i in corpus.training() if "square" not in corpus.rows[i].captions[0])
    texts = ["a square", "a square and a dog", "a dog near a cat", "a red background"]
    assert TruthReward(corpus).score(texts, [photo] * 4).tolist() == [0, -1, -2, 0]
    assert TruthReward(corpus).score(texts[:1], [other]).tolist() == [-1]


def test_a_worn_phrase_costs_what_it_is_said_too_often(corpus: Corpus) -> None:
    captions = [text for i in corpus.training() for text in corpus.rows[i].captions]
    here = [text for photo in {4, 9, 20} for text in corpus.rows[photo].captions]
    people = max(
        sum("on a red" in text for text in several) / len(several) for several in (captions, here)
    )
    worn = "circle on a red"  # the phrases "circle on a", "on a red"
    found = WornReward(corpus).score([worn, "a", "on a red", "b"], PHOTOS)
    assert found[1] == found[3] == 0
    assert found[2] == pytest.approx(people - 0.5)  # it stands in two of four
    assert found[0] <= found[2] < 0
    photos = [photo for photo in (4, 9, 20) for _ in corpus.rows[photo].captions]
    own = [text for photo in (4, 9, 20) for text in corpus.rows[photo].captions]
    assert not WornReward(corpus).score(own, photos).any()  # as often as people


def test_cider_takes_each_photos_own_captions(corpus: Corpus) -> None:
    own = [corpus.rows[photo].captions[0] for photo in PHOTOS]
    reward = CiderReward(corpus)
    assert reward.score(own, PHOTOS).min() > 1.0
    assert reward.score(own, PHOTOS[::-1])[1] < reward.score(own, PHOTOS)[1]


def test_words_that_people_do_not_say_twice_cost(corpus: Corpus) -> None:
    # people say "a" twice in nearly all of these captions, and nothing else
    reward = RepetitionReward(corpus)
    texts = ["a red circle on a red circle", "a red circle on a blue square", "no no no", ""]
    assert reward.score(texts, PHOTOS).tolist() == [-2.0, 0.0, -2.0, 0.0]


def test_the_floor_keeps_the_last_faithful_weights(tmp_path: Path) -> None:
    floor = Floor(0.5, tmp_path / "kept.safetensors")
    weights = {"a": torch.tensor([1.0])}
    assert floor.holds(0.7, weights)
    weights["a"] += 1
    assert floor.holds(0.5, weights)
    weights["a"] += 1
    assert not floor.holds(0.49, weights)
    floor.restore(weights)
    assert weights["a"].item() == 2.0


def test_a_stage_that_begins_below_its_floor(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"^the stage begins with 0\.200 of the objects"):
        Floor(0.5, tmp_path / "kept").holds(0.2, {})
    assert not (tmp_path / "kept").exists()


@pytest.fixture
def rewarded(write_recipe: Callable[..., Path], scorer_file: Path) -> Callable[[str], Path]:
    """A run whose last stage is rewarded for being found, with more keys for that stage."""

    def write(more: str) -> Path:
        named = f'monitor = "shapes"\nscorer = {json.dumps(str(scorer_file))}'
        return write_recipe(
            ('monitor = "shapes"', named),
            ("samples = 3\n", f"samples = 3\nlr = 5e-4\n{more}\n"),
            ("checkpoint = 4\nevaluate = 0\nviews = 1", "checkpoint = 4\nevaluate = 2\nviews = 1"),
        )

    return write


@pytest.mark.slow
def test_a_run_is_rewarded_for_being_found(
    rewarded: Callable[[str], Path], program: Any, tmp_path: Path
) -> None:
    result = program.invoke(rewarded("retrieval = 2.0\nfloor = 1e-9"), tmp_path / "run")
    assert result.exit_code == 0, result.output
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    steps = [line for line in map(json.loads, lines) if line["stage"] == 2]
    assert len(steps) == 6
    assert all(0 < step["retrieval"] < 1 for step in steps)
    assert [step["step"] for step in steps if "faithful" in step] == [1, 3, 5]
    assert not (tmp_path / "run" / "faithful.safetensors").exists()


def test_the_floor_stops_a_stage(
    rewarded: Callable[[str], Path],
    program: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It ends with the weights of the last look above the floor: here, those that it began with."""
    looks = iter([0.9, 0.3])
    plain = Monitor.look

    def look(self: Monitor, average: dict[str, Tensor], facts: bool = False) -> dict[str, float]:
        found = plain(self, average)
        return {**found, "faithful": next(looks)} if facts else found

    monkeypatch.setattr("nanocap.distill.training.monitor.Monitor.look", look)
    out = tmp_path / "run"
    result = program.invoke(rewarded("retrieval = 2.0\nfloor = 0.5"), out)
    assert result.exit_code == 0, result.output
    assert "stopped: 0.300 of the objects are there, below the floor of 0.5" in result.output
    steps = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert len([step for step in steps if step["stage"] == 2]) == 2
    before, _ = Student.load(out / "stage-1-end-to-end.safetensors")
    after, _ = Student.load(out / "student.safetensors")
    theirs = before.state_dict()
    assert all(torch.equal(x, theirs[name]) for name, x in after.state_dict().items())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("retrieval = 1.0", "retrieval needs a `floor`"),
        ("floor = 1.5", "is a share: at most 1"),
    ],
)
def test_rewards_that_do_not_fit(
    rewarded: Callable[[str], Path], program: Any, tmp_path: Path, more: str, message: str
) -> None:
    result = program.invoke(rewarded(more), tmp_path / "run")
    assert result.exit_code != 0
    assert message in result.output


def test_retrieval_without_a_scorer(
    write_recipe: Callable[..., Path], program: Any, tmp_path: Path
) -> None:
    recipe = write_recipe(("samples = 3", "samples = 3\nretrieval = 1.0\nfloor = 0.5"))
    assert "needs a `scorer`" in program.invoke(recipe, tmp_path / "run").output
