"""One shot by magnitude, and its command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from nanocap.cli import group
from nanocap.distill.pruning.axes import find_axes
from nanocap.distill.pruning.budget import prunable
from nanocap.distill.pruning.magnitude import prune_by_magnitude
from nanocap.distill.recipes.recipe import Recipe
from nanocap.student import Student
from nanocap.student.student import count_parameters


def prune(*arguments: str | Path) -> Result:
    return CliRunner().invoke(group, ["prune", *map(str, arguments)])


def test_the_smallest_channels_go(recipe: Recipe) -> None:
    student = Student(recipe.dimensions()).eval()
    small = torch.arange(128) % 2 == 0
    mlp = student.decoder.layers[0].mlp
    with torch.no_grad():
        mlp.up.weight[small] *= 0.01  # type: ignore[union-attr,operator,index]
        mlp.down.weight[:, small] *= 0.01  # type: ignore[union-attr,operator,index]
    large = mlp.up.weight[~small]  # type: ignore[union-attr,index]
    pruned = prune_by_magnitude(student, 0.8)
    left = pruned.decoder.layers[0].mlp.up.weight  # type: ignore[union-attr]
    assert 1 <= len(left) <= 64
    assert all(any(torch.equal(row, one) for one in large) for row in left)


def test_half_of_what_may_go_goes(recipe: Recipe) -> None:
    student = Student(recipe.dimensions())
    axes = find_axes(student.dimensions)
    gone = count_parameters(student) - count_parameters(prune_by_magnitude(student, 0.5))
    assert gone / prunable(axes) == pytest.approx(0.5, abs=0.03)


def test_the_command_writes_a_finished_student(checkpoints: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "new" / "small.safetensors"
    result = prune(checkpoints[0], "--keep", "0.5", "--out", out, "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    student, metadata = Student.load(out)
    before, theirs = Student.load(checkpoints[0])
    assert answer == {
        "student": str(out),
        "parameters": count_parameters(student),
        "parameters_before": count_parameters(before),
    }
    assert answer["parameters"] < answer["parameters_before"]
    assert metadata["tokenizer"] == theirs["tokenizer"]
    assert json.loads(metadata["training"]) == {"seed": 0, "pruned_by_magnitude": [0.5]}
    assert "already exists" in prune(checkpoints[0], "--keep", "0.5", "--out", out).output


def test_a_pruned_student_is_pruned_again(checkpoints: list[Path], tmp_path: Path) -> None:
    once, twice = tmp_path / "once.safetensors", tmp_path / "twice.safetensors"
    assert prune(checkpoints[0], "--keep", "0.5", "--out", once).exit_code == 0
    assert prune(once, "--keep", "0.6", "--out", twice).exit_code == 0
    whole, pruned = (
        prunable(find_axes(Student.load(path)[0].dimensions)) for path in (checkpoints[0], twice)
    )
    assert pruned / whole == pytest.approx(0.3, abs=0.03)
    _, metadata = Student.load(twice)
    assert json.loads(metadata["training"])["pruned_by_magnitude"] == [0.5, 0.6]


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ("0", "keep 0 must be a share above 0 and at most 1"),
        ("1.5", "keep 1.5 must be a share above 0 and at most 1"),
        ("0.001", "keep 0.001 leaves some heads no channel: keep at least"),
    ],
)
def test_budgets_that_cannot_be(
    checkpoints: list[Path], tmp_path: Path, keep: str, message: str
) -> None:
    out = tmp_path / "small.safetensors"
    result = prune(checkpoints[0], "--keep", keep, "--out", out)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"nanocap: {message}")
    assert not out.exists()


def test_a_checkpoint_that_is_none(tmp_path: Path) -> None:
    result = prune(tmp_path / "none", "--keep", "0.5", "--out", tmp_path / "small.safetensors")
    assert result.exit_code == 1
    assert result.stderr == f"nanocap: {tmp_path}/none: no such checkpoint\n"
