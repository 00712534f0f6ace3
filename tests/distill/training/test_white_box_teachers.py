"""White-box teachers: what their share of the loss is, and a run that learns from two of them."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nanocap.distill.data.batches import pack
from nanocap.distill.recipes.recipe import Recipe
from nanocap.distill.training.losses import CaptionLoss, Guidance, Reader, divergence, target_count
from nanocap.distill.training.white_box_teachers import Guides, Watching
from nanocap.student import Student
from nanocap.student.controls import END

CAPTIONS = pack([[3, 6, 20, 21, END], [3, 7, 30, END], [4, 8, 20, 30, 40, END]], [0, 1, 1])
ONES = torch.ones(3)


def different(recipe: Recipe, seed: int) -> Student:
    """A student whose logits are far from flat."""
    torch.manual_seed(seed)
    student = Student(recipe.dimensions()).eval()
    for parameter in student.decoder.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return student


@pytest.fixture
def pixels() -> Tensor:
    return torch.randn(2, 3, 64, 64)


def guidance(student: Student, pixels: Tensor, share: float, *others: Student) -> Guidance:
    with torch.no_grad():
        readers = [Reader(s.decoder, s.encoder(pixels)) for s in (student, *others)]
    return Guidance(Watching(readers), share)


def test_divergence_is_the_textbooks() -> None:
    student, first, second = torch.randn(3, 5, 7).double()
    mean = (first.softmax(-1) + second.softmax(-1)) / 2
    expected = (mean * (mean.log() - student.log_softmax(-1))).sum(-1)
    torch.testing.assert_close(divergence(student, [first, second]), expected)
    assert float(expected.min()) > 0


def test_a_student_that_equals_its_teacher_has_nothing_to_learn(
    recipe: Recipe, pixels: Tensor
) -> None:
    student = different(recipe, 0)
    teacher = copy.deepcopy(student)
    loss = CaptionLoss(student)(pixels, False, CAPTIONS, 0.1, ONES, guidance(teacher, pixels, 1.0))
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-5)
    largest = max(float(p.grad.abs().max()) for p in student.parameters() if p.grad is not None)
    assert largest < 1e-5
    assert all(p.grad is None for p in teacher.parameters())


def test_the_share_divides_the_loss(recipe: Recipe, pixels: Tensor) -> None:
    student, teacher = different(recipe, 0), different(recipe, 1)

    def loss(share: float) -> float:
        seen = guidance(teacher, pixels, share)
        return float(CaptionLoss(student)(pixels, False, CAPTIONS, 0.1, ONES, seen))

    alone = float(CaptionLoss(student)(pixels, False, CAPTIONS, 0.1, ONES))
    assert loss(0.0) == pytest.approx(alone, rel=1e-5)
    assert loss(0.3) == pytest.approx(0.7 * loss(0.0) + 0.3 * loss(1.0), rel=1e-5)


def test_the_gradient_of_the_divergence_is_right(recipe: Recipe, pixels: Tensor) -> None:
    """Along a random direction, against the difference of two losses."""
    student, teacher = different(recipe, 0), different(recipe, 1)
    seen = guidance(teacher, pixels, 1.0)
    weight = student.decoder.embedding.weight
    direction = torch.randn_like(weight)
    CaptionLoss(student)(pixels, False, CAPTIONS, 0.0, ONES, seen).backward()
    assert weight.grad is not None
    slope = float((weight.grad * direction).sum())
    around = []
    for side in (1e-3, -1e-3):
        moved = copy.deepcopy(student)
        moved.decoder.embedding.weight.data += side * direction
        around.append(float(CaptionLoss(moved)(pixels, False, CAPTIONS, 0.0, ONES, seen)))
    assert slope == pytest.approx((around[0] - around[1]) / 2e-3, rel=0.02)


def test_following_a_teacher_brings_the_student_nearer(recipe: Recipe, pixels: Tensor) -> None:
    student, teacher = different(recipe, 0), different(recipe, 1)
    seen = guidance(teacher, pixels, 1.0)
    optimizer = torch.optim.Adam(student.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = CaptionLoss(student)(pixels, False, CAPTIONS, 0.0, ONES, seen)
        (loss / target_count(CAPTIONS)).backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < 0.3 * losses[0]


def test_a_run_learns_from_two_teachers(
    checkpoints: list[Path], write_recipe: Any, program: Any, tmp_path: Path
) -> None:
    named = json.dumps([str(path) for path in checkpoints])
    recipe = write_recipe(
        ('imagenet = ""', f'imagenet = ""\nteachers = {named}'),
        ("steps = 6\ntrain", "steps = 6\ndistillation = 0.5\ntrain"),
        stages=2,
    )
    result = program.invoke(recipe, tmp_path / "run")
    assert result.exit_code == 0, result.output
    _, header = Student.load(tmp_path / "run" / "student.safetensors")
    _, theirs = Student.load(checkpoints[0])
    assert header["tokenizer"] == theirs["tokenizer"]
    assert json.loads(header["training"])["teachers"][0] == json.loads(theirs["training"])
    (tmp_path / "run" / "stage-1-end-to-end.safetensors").unlink()
    checkpoints[1].write_bytes(checkpoints[0].read_bytes())  # another teacher: another run
    refused = program.invoke(recipe, tmp_path / "run")
    assert refused.exit_code != 0
    assert "made by another recipe" in refused.output


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("steps = 9", "steps = 9\ndistillation = 0.5", "needs `teachers` to learn from"),
        ("steps = 9", "steps = 9\nrelation = 0.5", "relation needs `teachers` to learn from"),
        ("steps = 9", "steps = 9\ndistillation = 1.5", "is a share: at most 1"),
        ('monitor = "shapes"', 'start = "a"\nteachers = ["b"]', "each bring a tokenizer"),
    ],
)
def test_recipes_that_do_not_fit(
    write_recipe: Any, program: Any, tmp_path: Path, old: str, new: str, message: str
) -> None:
    result = program.invoke(write_recipe((old, new)), tmp_path / "run")
    assert result.exit_code != 0
    assert message in result.output


def test_self_critical_stages_take_no_teacher(
    write_recipe: Any, program: Any, tmp_path: Path
) -> None:
    recipe = write_recipe(
        ('monitor = "shapes"', 'monitor = "shapes"\nteachers = ["t"]'),
        ("samples = 3", "samples = 3\ndistillation = 0.5"),
    )
    assert "for supervised stages only" in program.invoke(recipe, tmp_path / "run").output


def test_digests_name_the_files(checkpoints: list[Path]) -> None:
    guides = Guides(checkpoints)
    assert len(set(guides.digests)) == 2
    assert replace(Recipe("r", None, ()), teachers=guides.digests)  # type: ignore[arg-type]
