"""A scorer from drawn photos: what it learns, what a kill does to it, what is refused."""

from __future__ import annotations

import json
import os
import string
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from tokenizers import Tokenizer

from nanocap.cli import group
from nanocap.distill.data.corpus import Corpus
from nanocap.distill.data.scorer_texts import pad, self_contained
from nanocap.distill.data.tokenizer import encode, normalize, train_tokenizer
from nanocap.distill.recipes.recipe import Recipe
from nanocap.distill.scorer import ImageTextScorer
from nanocap.distill.scorer.monitor import recall_at_one
from nanocap.distill.scorer.recipe import load_scorer_recipe
from nanocap.distill.scorer.trainer import ScorerRun, train_scorer
from nanocap.distill.training import pretrained_trunks
from nanocap.distill.training.run import Start
from nanocap.errors import ImageError, NanocapError, OptionError, RecipeError
from nanocap.scorer import Scorer, ScorerDimensions
from nanocap.student import Student
from nanocap.student.controls import END

RECIPES = Path(__file__).parents[3] / "distill" / "scorer" / "recipes"
STEPS = 90

RECIPE = f"""
name = "shapes"
start = "student.safetensors"
seed = 3
monitor = "shapes"

[scorer]
width = 32
heads = 2
layers = 1
max_pieces = 14
embedding = 32
matching = 16

[data]
vocabulary = 80

[[data.sources]]
name = "shapes"
table = "captions.jsonl"
aside = 8
licence = "drawn by a test"

[training]
steps = {STEPS}
batch = 14
lr = 3e-3
trunk_lr = 3e-4
warmup = 5
views = 3
ema = 0.9
dropout = 0.0
softening = 0.1
checkpoint = 30
evaluate = 45
"""


@pytest.fixture(scope="module")
def folder(recipe: Recipe, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student whose trunk knows ImageNet, and the recipe beside it."""
    folder = tmp_path_factory.mktemp("scorer")
    torch.manual_seed(0)
    student = Student(replace(recipe.dimensions(), trunk="lite0"))
    student.encoder.trunk.load_imagenet(pretrained_trunks.load("efficientnet-lite0"))
    student.save(folder / "student.safetensors", {"tokenizer": corpus.tokenizer.to_str()})
    (folder / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    return folder


@dataclass(frozen=True)
class Command:
    """`nanocap scorer` as a process of its own, over one cache."""

    data: Path
    folder: Path

    def start(self, out: Path) -> subprocess.Popen[str]:
        recipe, cache = self.folder / "recipe.toml", self.folder / "cache"
        command = [
            *(sys.executable, "-m", "nanocap", "scorer", str(recipe), "--out", str(out)),
            *("--data", str(self.data), "--cache", str(cache), "--precision", "fp32"),
        ]
        return subprocess.Popen(
            command,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, out: Path) -> None:
        process = self.start(out)
        printed, _ = process.communicate(timeout=300)
        assert process.returncode == 0, printed


@pytest.fixture(scope="module")
def scorer_program(drawn: Path, folder: Path) -> Command:
    return Command(drawn, folder)


@pytest.fixture(scope="module")
def finished(scorer_program: Command, folder: Path) -> Path:
    """An uninterrupted run."""
    scorer_program.run(folder / "run")
    return folder / "run"


def metrics(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in line if key != "seconds"} for line in lines]


def test_it_learns_to_find_the_caption_of_a_photo_set_aside(finished: Path) -> None:
    lines = metrics(finished)
    assert [line["step"] for line in lines] == list(range(STEPS))
    assert lines[-1]["contrast"] < 0.5 * lines[0]["contrast"]
    assert lines[-1]["matching"] < 0.7 * lines[0]["matching"]
    assert lines[-1]["masked"] < 0.7 * lines[0]["masked"]
    assert lines[-1]["recall"] >= 0.5  # of 8 photos: chance is an eighth


def test_its_scores_rank_the_right_caption_above_wrong_ones(
    finished: Path, folder: Path, drawn: Path
) -> None:
    scorer = ImageTextScorer.load(finished / "scorer.safetensors")
    [prepared] = (folder / "cache").glob("corpus-*")
    corpus = Corpus(prepared)
    rows = corpus.aside("shapes")
    images, texts = [corpus.photo(i) for i in rows], [corpus.rows[i].captions[0] for i in rows]
    for similarity in (scorer.score(images, texts), scorer.match(images, texts)):
        assert similarity.shape == (8, 8)
        assert similarity.dtype == np.float32
        assert np.abs(similarity).max() <= 1 + 1e-5
        assert (similarity.argmax(1) == np.arange(8)).mean() >= 0.5
    written = [text.upper() + "!" for text in texts]  # as people write
    assert np.array_equal(scorer.score(images, written), scorer.score(images, texts))


def test_a_score_does_not_depend_on_its_neighbours(finished: Path, drawn: Path) -> None:
    scorer = ImageTextScorer.load(finished / "scorer.safetensors")
    paths = sorted((drawn / "photos").iterdir())[:3]
    texts = ["a red circle", "", "there is a blue square before red and much else " * 5]
    together = scorer.score(paths, texts)
    for i, path in enumerate(paths):
        for j, text in enumerate(texts):
            assert scorer.score([path], [text])[0, 0] == pytest.approx(together[i, j], abs=1e-5)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    assert np.allclose(
        scorer.score(pixels, texts), scorer.score(list(pixels), texts), rtol=0, atol=1e-6
    )


def test_what_cannot_be_scored_is_one_line(finished: Path, tmp_path: Path) -> None:
    scorer = ImageTextScorer.load(finished / "scorer.safetensors")
    pixels = np.zeros((1, 64, 64, 3), np.uint8)
    for images, texts in ((pixels[:0], ["a"]), (pixels, []), (pixels[:, :32], ["a"])):
        with pytest.raises(OptionError):
            scorer.score(images, texts)
    with pytest.raises(OptionError, match="a list with one text"):
        scorer.score(pixels, "a text")  # a string is a sequence of strings
    with pytest.raises(ImageError, match=r"none\.png: there is no such file"):
        scorer.score([tmp_path / "none.png"], ["a"])


@pytest.mark.slow
def test_killed_and_resumed_it_ends_as_if_never_killed(
    scorer_program: Command, finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    process = scorer_program.start(out)
    while process.poll() is None and not (out / "checkpoint.safetensors").exists():
        try:
            process.wait(0.02)
        except subprocess.TimeoutExpired:
            continue
    process.kill()
    process.communicate()
    assert (out / "checkpoint.safetensors").exists()
    scorer_program.run(out)
    assert metrics(out) == metrics(finished)
    ours = load_file(out / "scorer.safetensors")
    theirs = load_file(finished / "scorer.safetensors")
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []
    assert not (out / "checkpoint.safetensors").exists()


def test_the_lower_trunk_is_still_the_students(finished: Path, folder: Path) -> None:
    scorer, header = Scorer.load(finished / "scorer.safetensors")
    student, theirs = Student.load(folder / "student.safetensors")
    ours = scorer.image.encoder.trunk
    for a, b in zip(ours.lower_parameters(), student.encoder.trunk.lower_parameters(), strict=True):
        # averaging keeps what rests, up to rounding
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
    upper = zip(ours.upper_parameters(), student.encoder.trunk.upper_parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in upper)
    most = scorer.dimensions.max_pieces
    own = self_contained(Tokenizer.from_str(theirs["tokenizer"]), most)
    assert header["tokenizer"] == own.to_str()
    assert json.loads(header["training"])["data"][0]["licence"] == "drawn by a test"


def invoke(folder: Path, drawn: Path, out: Path, recipe: str = RECIPE) -> Result:
    path = out.parent / "changed.toml"
    path.write_text(recipe, encoding="utf-8")
    start, cache = folder / "student.safetensors", folder / "cache"
    more = ["--data", drawn, "--start", start, "--cache", cache, "--precision", "fp32", "--json"]
    return CliRunner().invoke(group, ["scorer", str(path), "--out", str(out), *map(str, more)])


def test_a_finished_run_is_left_alone_and_refused_to_another_recipe(
    finished: Path, folder: Path, drawn: Path
) -> None:
    before = (finished / "scorer.safetensors").stat().st_mtime_ns
    result = invoke(folder, drawn, finished)
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"result": str(finished / "scorer.safetensors")}
    assert (finished / "scorer.safetensors").stat().st_mtime_ns == before
    changed = invoke(folder, drawn, finished, RECIPE.replace("seed = 3", "seed = 4"))
    assert changed.exit_code == 2
    assert "made by another recipe; choose another --out" in changed.stderr


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed = 3", "sed = 3", "unknown key 'sed' in the recipe; did you mean 'seed'?"),
        ("batch = 14", "batch = 0", "training.batch must be at least 1, not 0"),
        ("softening = 0.1", "softening = 2.0", "training.softening is a share: at most 1"),
        ("views = 3", 'train = ["lower"]', "training.train has 'lower'; known are heads, text,"),
        ("layers = 1", "layers = 0", "[scorer]: layers must be at least 1, not 0"),
        ("heads = 2", "head = 2", "[scorer]: unknown dimension 'head'; known are"),
        ("heads = 2", "heads = 5", "[scorer]: width 32 is not a multiple of heads 5"),
        ('monitor = "shapes"', 'monitor = "x"', "monitor 'x' is not the name of a source"),
        ('start = "student.safetensors"', "", "the recipe lacks the key 'start'"),
    ],
)
def test_recipes_that_cannot_be(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "recipe.toml"
    assert old in RECIPE
    path.write_text(RECIPE.replace(old, new))
    with pytest.raises(RecipeError) as caught:
        load_scorer_recipe(path)
    assert str(caught.value).startswith(f"{path}: {message}")


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.name)
def test_recipes_of_the_package_load(path: Path) -> None:
    recipe = load_scorer_recipe(path)
    assert recipe.name == path.stem
    assert all(source.licence for source in recipe.data.sources)


def test_files_that_are_no_scorer(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NanocapError, match="no such scorer"):
        Scorer.load(tmp_path / "none.safetensors")
    with pytest.raises(NanocapError, match="not a scorer's checkpoint"):
        Scorer.load(folder / "student.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"broken")
    with pytest.raises(NanocapError, match="not a scorer's checkpoint"):
        Scorer.load(tmp_path / "broken.safetensors")
    Scorer(TINY).save(tmp_path / "bare.safetensors")
    with pytest.raises(NanocapError, match="has no tokenizer"):
        ImageTextScorer.load(tmp_path / "bare.safetensors")


TINY = ScorerDimensions.from_dict(
    {
        "student": {"image_size": 64, "width": 32, "heads": 2, "vocabulary": 80, "keep": [8, 8]},
        "width": 32,
        "heads": 2,
        "layers": 2,
        "embedding": 16,
        "matching": 8,
        "max_pieces": 10,
    }
)


def test_save_and_load_give_the_same_scorer(tmp_path: Path) -> None:
    scorer = Scorer(TINY).eval()
    scorer.save(tmp_path / "scorer.safetensors", {"note": "x"})
    again, header = Scorer.load(tmp_path / "scorer.safetensors")
    assert again.dimensions == TINY
    assert header["note"] == "x"
    tokens, mask = pad([[3, 4, 1], [5, 1]])
    torch.testing.assert_close(again.text(tokens, mask).whole, scorer.text(tokens, mask).whole)


@torch.no_grad()
def test_a_text_is_the_same_however_it_is_padded() -> None:
    tower = Scorer(TINY).eval().text
    tokens, mask = pad([[3, 4, 1]])
    wide, wide_mask = torch.tensor([[3, 4, 1, 7, 0]]), torch.tensor([[1, 1, 1, 0, 0]])
    torch.testing.assert_close(tower(wide, wide_mask).whole, tower(tokens, mask).whole)
    assert not torch.allclose(tower(tokens.flip(1), mask).whole, tower(tokens, mask).whole)


@torch.no_grad()
def test_what_is_hidden_does_not_show_in_the_guess() -> None:
    tower = Scorer(TINY).eval().text
    _, mask = pad([[3, 4, 1]])
    hidden, photo = torch.tensor([[False, True, False]]), torch.randn(1, 16)
    one = tower.guess(torch.tensor([[3, 4, 1]]), mask, hidden, photo)
    other = tower.guess(torch.tensor([[3, 9, 1]]), mask, hidden, photo)
    assert one.shape == (1, 80)
    torch.testing.assert_close(one, other)
    assert not torch.allclose(one, tower.guess(torch.tensor([[8, 4, 1]]), mask, hidden, photo))
    assert not torch.allclose(one, tower.guess(torch.tensor([[3, 4, 1]]), mask, hidden, -photo))


def test_recall_counts_strict_wins_against_other_photos() -> None:
    owner = np.repeat(np.arange(3), 2)
    right = (np.arange(3)[:, None] == owner[None, :]).astype(np.float32)
    assert recall_at_one(right, owner) == 1
    assert recall_at_one(np.zeros((3, 6), np.float32), owner) == 0
    assert recall_at_one(-right, owner) == 0
    right[0] = 0.5  # photo 0 ties
    assert recall_at_one(right, owner) == pytest.approx(4 / 6)


@settings(deadline=None)
@given(st.lists(st.text(string.printable + "’–àéüßñ", max_size=40), max_size=4))
@example(["A Red circle!", "", "it’s a cat's -- 'quoted' & un-cut_ one", "ÉTÉ\u00a0STRASSE"])
def test_a_tokenizer_by_itself_reads_texts_as_training_does(texts: list[str]) -> None:
    plain = train_tokenizer(["a red circle and a blue square's un-cut side"] * 2, 80)
    expected = encode(plain, [normalize(text) for text in texts], 100)
    assert [one.ids for one in self_contained(plain, 100).encode_batch(texts)] == expected


def test_a_tokenizer_by_itself_ends_every_text(corpus: Corpus) -> None:
    whole = self_contained(corpus.tokenizer, 10)
    ids = [one.ids for one in whole.encode_batch(["A Red circle!", "", "red " * 30])]
    assert [row[-1] for row in ids] == [END] * 3
    assert (len(ids[1]), len(ids[2])) == (1, 10)
    assert not {i for row in ids for i in row} & set(range(3, 9))
    again = self_contained(Tokenizer.from_str(whole.to_str()), 10)
    assert again.to_str() == whole.to_str()
    assert corpus.tokenizer.normalizer is None  # it was a copy


def test_a_default_scorer_has_a_small_text_tower() -> None:
    scorer = Scorer(ScorerDimensions())
    own = sum(p.numel() for p in scorer.text.parameters())
    assert 1.5e6 < own < 3e6
    assert sum(p.numel() for p in scorer.parameters()) < 10e6  # int8: a byte each


def test_a_student_of_other_dimensions_is_refused(folder: Path) -> None:
    student, _ = Student.load(folder / "student.safetensors")
    with pytest.raises(NanocapError, match="not those that the scorer names"):
        Scorer(TINY).start_from(student)


def test_a_damaged_checkpoint_is_refused(folder: Path, tmp_path: Path, corpus: Corpus) -> None:
    recipe = load_scorer_recipe(folder / "recipe.toml")
    start = Start(folder / "student.safetensors")
    run = ScorerRun(recipe, corpus, start, tmp_path, tmp_path)
    run.checkpoint.write_bytes(b"broken")
    with pytest.raises(NanocapError, match="damaged checkpoint"):
        train_scorer(run, narrow=False)
