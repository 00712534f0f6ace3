"""Recall at 1 of photos by their captions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import comb
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nanocap.cli import group
from nanocap.measure.metrics.evaluation import compare, evaluate
from nanocap.measure.metrics.retrieval import recall_at_one

SCORERS = ("cider",)


@given(st.integers(2, 40), st.integers(1, 99), st.integers(0, 2**32 - 1))
def test_the_chance_is_what_drawing_would_find(photos: int, others: int, seed: int) -> None:
    """Against the definition: every subset counted by its rivals, as a hypergeometric draw."""
    similarity = np.random.default_rng(seed).integers(0, 5, (photos, photos)).astype(np.float32)
    k = min(others, photos - 1)
    expected = []
    for row in range(photos):
        rivals = sum(
            similarity[row, column] >= similarity[row, row]
            for column in range(photos)
            if column != row
        )
        expected.append(comb(photos - 1 - rivals, k) / comb(photos - 1, k))
    np.testing.assert_allclose(recall_at_one(similarity, others), expected, atol=1e-12)


def test_a_scorer_that_tells_nothing_apart_finds_nothing() -> None:
    assert recall_at_one(np.ones((150, 150))).max() == 0
    assert recall_at_one(np.eye(150)).min() == 1


def test_one_rival_of_many_is_seldom_drawn() -> None:
    similarity = np.eye(200)
    similarity[0, 1] = 2
    assert recall_at_one(similarity)[0] == pytest.approx(1 - 99 / 199)


@pytest.mark.parametrize("shape", [(3, 4), (1, 1)])
def test_it_says_what_it_needs(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="two photos or more"):
        recall_at_one(np.zeros(shape))


def test_captions_that_tell_photos_apart_are_better() -> None:
    """A matcher that compares words: the caption that names its own photo finds it."""
    names = [f"thing{number}" for number in range(120)]
    references = {name: [f"a {name} here"] for name in names}

    def matcher(texts: Sequence[str], keys: Sequence[str]) -> npt.NDArray[np.floating]:
        return np.array([[float(key in text.split()) for key in keys] for text in texts])

    right = evaluate(
        {name: f"a {name}" for name in names}, references, None, SCORERS, matcher=matcher
    )
    vague = evaluate(dict.fromkeys(names, "a thing"), references, None, SCORERS, matcher=matcher)
    figures = right.to_dict()["figures"]
    assert figures["retrieval_r1"]["value"] == 100
    assert figures["retrieval_r1_people"]["value"] == 100
    assert vague.to_dict()["figures"]["retrieval_r1"]["value"] == 0
    [row] = [row for row in compare(right, vague) if row.key == "retrieval_r1"]
    assert row.label == "retrieval R@1 of 100 (%)"
    assert row.verdict == "first"


def test_without_a_scorer_the_row_says_why() -> None:
    found = evaluate({"a": "a dog", "b": "a cat"}, {"a": ["a dog"], "b": ["a cat"]}, None, SCORERS)
    assert "--scorer" in found.to_dict()["missing"]["retrieval R@1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of one colour each, a table of references, and a scorer of random weights."""
    torch = pytest.importorskip("torch")
    from nanocap.distill.data.tokenizer import train_tokenizer
    from nanocap.scorer import Scorer, ScorerDimensions
    from nanocap.student import Dimensions

    root = tmp_path_factory.mktemp("retrieval")
    colours = {"red": (220, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 220), "white": (250,) * 3}
    lines = []
    for name, rgb in colours.items():
        Image.new("RGB", (40, 30), rgb).save(root / f"{name}.png")
        lines.append(json.dumps({"image": f"{name}.png", "captions": [f"a {name} square"]}))
    (root / "references.jsonl").write_text("\n".join(lines))
    captions = [
        json.dumps({"image": f"{name}.png", "caption": f"a {name} picture"}) for name in colours
    ]
    (root / "ours.jsonl").write_text("\n".join(captions))
    tokenizer = train_tokenizer([f"a {name} square picture" for name in colours] * 3, 300)
    torch.manual_seed(0)
    student = Dimensions(vocabulary=tokenizer.get_vocab_size(), width=32, heads=2)
    scorer = Scorer(ScorerDimensions(student, width=32, heads=2, layers=1, embedding=16))
    scorer.save(root / "scorer.safetensors", {"tokenizer": tokenizer.to_str()})
    return root


def run(folder: Path, *arguments: object) -> Result:
    table = folder / "references.jsonl"
    skips = ("--skip", "meteor", "--skip", "spice")
    words = ("eval", folder / "ours.jsonl", "--data", table, "--json", *skips, *arguments)
    return CliRunner().invoke(group, [str(word) for word in words])


def test_the_command(folder: Path) -> None:
    """The figure is what the scorer's own similarities say."""
    from nanocap.distill.teachers.similarity import ImageTextScorer

    result = run(folder, "--scorer", folder / "scorer.safetensors")
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)["figures"]
    names = sorted(path.stem for path in folder.glob("*.png"))
    scorer = ImageTextScorer.load(folder / "scorer.safetensors")
    similarity = scorer.score(
        [folder / f"{name}.png" for name in names], [f"a {name} picture" for name in names]
    )
    expected = 100 * recall_at_one(similarity.T).mean()
    assert figures["retrieval_r1"]["value"] == pytest.approx(expected, abs=1e-3)


def test_a_scorer_that_is_not_there(folder: Path) -> None:
    result = run(folder, "--scorer", folder / "none.safetensors")
    assert result.exit_code != 0
    assert "none.safetensors" in result.stderr
