"""Where a run stands: exact, whole, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nanocap.distill.recipes.recipe import Recipe
from nanocap.distill.training.checkpoint import (
    Position,
    load_checkpoint,
    read_position,
    save_checkpoint,
)
from nanocap.errors import DataError
from nanocap.student import Student

Parts = tuple[Student, dict[str, Tensor], torch.optim.Optimizer]


@pytest.fixture
def fresh(recipe: Recipe) -> Callable[[], Parts]:
    def make() -> Parts:
        student = Student(recipe.dimensions())
        for parameter in student.encoder.trunk.lower_parameters():
            parameter.requires_grad_(False)
        chosen = [p for p in student.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in chosen if p.dim() > 1], "weight_decay": 0.1},
            {"params": [p for p in chosen if p.dim() <= 1], "weight_decay": 0.0},
        ]
        average = {name: tensor.clone() for name, tensor in student.state_dict().items()}
        return student, average, torch.optim.AdamW(groups, lr=1e-3, fused=True)

    return make


def work(parts: Parts, steps: int) -> None:
    """A few steps of training that depend on nothing but the weights and the moments."""
    student, average, optimizer = parts
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        pixels = torch.randn(1, 3, 64, 64, generator=generator)
        student(pixels, torch.tensor([[[3, 6, 20, 21]]])).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        for name, tensor in student.state_dict().items():
            average[name].lerp_(tensor, 0.1)


def test_round_trip_is_exact(fresh: Callable[[], Parts], tmp_path: Path) -> None:
    path, position = tmp_path / "checkpoint.safetensors", Position(1, 3, "abc")
    before = fresh()
    work(before, 3)
    save_checkpoint(path, position, *before)
    assert read_position(path) == position
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    after = fresh()
    load_checkpoint(path, *after)
    for _ in range(2):  # at once, and after more steps of both
        for name, tensor in before[0].state_dict().items():
            assert torch.equal(after[0].state_dict()[name], tensor)
            assert torch.equal(after[1][name], before[1][name])
        work(before, 2)
        work(after, 2)


def test_averaged_weights_are_a_student(fresh: Callable[[], Parts], tmp_path: Path) -> None:
    parts = fresh()
    work(parts, 2)
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, Position(0, 2, "abc"), *parts)
    student, _ = Student.load(path, prefix="average.")
    assert all(torch.equal(t, parts[1][name]) for name, t in student.state_dict().items())


def test_no_checkpoint_is_no_position(tmp_path: Path) -> None:
    assert read_position(tmp_path / "checkpoint.safetensors") is None


@pytest.mark.parametrize("cut", [0, 7, 300, -1])
def test_a_damaged_file(fresh: Callable[[], Parts], tmp_path: Path, cut: int) -> None:
    path, parts = tmp_path / "checkpoint.safetensors", fresh()
    work(parts, 1)
    save_checkpoint(path, Position(0, 1, "abc"), *parts)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=rf"^{path}: damaged checkpoint; delete it to redo this"):
        read_position(path)


def test_a_save_that_fails_leaves_the_old_file(
    fresh: Callable[[], Parts], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, parts = tmp_path / "checkpoint.safetensors", fresh()
    work(parts, 1)
    save_checkpoint(path, Position(0, 1, "abc"), *parts)

    def full_disk(tensors: object, filename: Path, metadata: object) -> None:
        filename.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("nanocap.distill.training.checkpoint.save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, Position(0, 2, "abc"), *parts)
    assert read_position(path) == Position(0, 1, "abc")
