"""A run with a concept head, from nothing and from a student that has none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from nanocap.distill.training import trainer
from nanocap.distill.training.naming import ImageNetTrunk, Naming
from nanocap.student import Student
from nanocap.student.evidence import CLASSES, ConceptHead, Seen

STAGES = """
[[stages]]
name = "naming"
kind = "naming"
steps = 3
batch = 6
train = ["concepts"]
naming = 1.0
views = 1
warmup = 1
evaluate = 0

[[stages]]
name = "both"
kind = "supervised"
steps = 4
batch = 6
views = 1
texts = 5
swapped = 0.5
renamed = 3
naming = 1.0
warmup = 1
checkpoint = 2
evaluate = 0
"""


@pytest.fixture
def with_head(write_recipe: Any, tmp_path: Path) -> Callable[..., Path]:
    """Writes a recipe whose student has a concept head, with more replacements."""

    def write(*more: tuple[str, str]) -> Path:
        (tmp_path / "text.jsonl").write_text('{"captions": ["a dog near a red bus"]}\n' * 3)
        text = f'vocabulary = 80\nconcepts = 5\ntext = ["{tmp_path / "text.jsonl"}"]'
        path: Path = write_recipe(
            ('imagenet = ""', 'imagenet = "efficientnet-lite0"'),
            ("vocabulary = 80", text),
            *more,
            stages=0,
        )
        path.write_text(path.read_text() + STAGES)
        return path

    return write


def head_of(student: Student) -> ConceptHead:
    head = student.encoder.concepts
    assert isinstance(head, ConceptHead)
    return head


def test_a_run_gives_a_student_that_knows_words(
    with_head: Any, program: Any, tmp_path: Path
) -> None:
    result = program.invoke(with_head(), tmp_path / "run")
    assert result.exit_code == 0, result.output
    student, metadata = Student.load(tmp_path / "run" / "student.safetensors")
    pieces = Tokenizer.from_str(metadata["tokenizer"])
    words = [pieces.id_to_token(piece) for piece in head_of(student).pieces.tolist()]
    assert words[0] == "\u2581square"  # the only noun of the captions
    assert {"\u2581turtle", "\u2581balloon", "\u2581frog"} <= set(words)
    assert student.dimensions.vocabulary == pieces.get_vocab_size()
    losses = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert [one["stage"] for one in losses] == [0] * 3 + [1] * 4
    assert all(one["loss"] == pytest.approx(one["loss"]) for one in losses)  # no NaN


def test_a_run_that_stopped_goes_on_with_the_same_texts(
    with_head: Any, program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are drawn by what the head found as the stage began, not by what it knows by then."""
    recipe, whole, parts = with_head(), tmp_path / "whole", tmp_path / "parts"
    assert program.invoke(recipe, whole).exit_code == 0
    save = trainer.save_checkpoint

    def save_and_stop(*given: Any) -> None:
        save(*given)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "save_checkpoint", save_and_stop)
        assert program.invoke(recipe, parts).exit_code != 0
    assert not (parts / "student.safetensors").exists()
    assert program.invoke(recipe, parts).exit_code == 0
    ours, theirs = (load_file(out / "student.safetensors") for out in (parts, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_student_without_a_head_gets_one_and_keeps_what_it_had(
    with_head: Any, program: Any, checkpoints: list[Path], tmp_path: Path
) -> None:
    start = f'imagenet = "efficientnet-lite0"\nstart = "{checkpoints[0]}"\nfresh = true'
    recipe = with_head(('imagenet = "efficientnet-lite0"', start))
    result = program.invoke(recipe, tmp_path / "run")
    assert result.exit_code == 0, result.output
    before, old = Student.load(checkpoints[0])
    after, _ = Student.load(tmp_path / "run" / "stage-0-naming.safetensors")
    count = before.dimensions.vocabulary
    ours, theirs = after.decoder.embedding.weight, before.decoder.embedding.weight
    assert torch.equal(ours[:count], theirs)  # the first stage trains the head alone
    assert torch.equal(after.encoder.from_top.weight, before.encoder.from_top.weight)
    words = Tokenizer.from_str(old["tokenizer"])
    _, metadata = Student.load(tmp_path / "run" / "student.safetensors")
    turtle = Tokenizer.from_str(metadata["tokenizer"]).token_to_id("\u2581turtle")
    torch.testing.assert_close(ours[turtle], theirs[words.encode("turtle").ids].mean(0))
    lower = after.encoder.trunk.lower_parameters()[0]
    assert not torch.equal(lower, before.encoder.trunk.lower_parameters()[0])  # `fresh`


def test_the_loss_is_least_where_words_and_classes_are_right() -> None:
    said = torch.tensor([[1.0, 0.0]])
    classes = torch.randn(1, CLASSES).log_softmax(1)
    naming = Naming(classes, said, torch.ones(1, 2), 1.0)
    none = torch.zeros(1, 0)

    def loss(logits: torch.Tensor, words: list[float]) -> float:
        tokens = torch.zeros(1, 4, 8)
        return float(naming(Seen(tokens, none, none, logits, torch.tensor([words]))))

    right = loss(classes, [20.0, -20.0])
    assert right == pytest.approx(0, abs=1e-4)
    assert loss(classes, [-20.0, -20.0]) > right + 1
    assert loss(classes.flip(1), [20.0, -20.0]) > right + 0.1


@torch.no_grad()
def test_the_trunk_that_is_not_to_be_forgotten_is_imagenets() -> None:
    trunk = ImageNetTrunk("lite0", "efficientnet-lite0")
    pixels = torch.randn(2, 3, 64, 64)
    found = trunk.classes(pixels, from_maps=False)
    assert found.shape == (2, CLASSES)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(2))
    torch.testing.assert_close(trunk.classes(trunk.trunk.lower(pixels), from_maps=True), found)
    assert not any(parameter.requires_grad for parameter in trunk.parameters())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("concepts = 5\n", "", "renamed need `data.concepts`"),
        ("swapped = 0.5", "swapped = 1.5", "swapped is a share"),
        ("naming = 1.0\nviews = 1\nwarmup = 1\nevaluate = 0", "views = 1", "its only loss"),
        ('"efficientnet-lite0"', '""', "a trunk with a classifier"),
    ],
)
def test_recipes_that_cannot_be(
    with_head: Any, program: Any, tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = with_head()
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    result = program.invoke(path, tmp_path / "run")
    assert result.exit_code == 2
    assert message in result.output
