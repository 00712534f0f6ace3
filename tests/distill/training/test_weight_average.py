"""The average of students' weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from nanocap.cli import group
from nanocap.distill.recipes.recipe import Recipe
from nanocap.distill.training.weight_average import average
from nanocap.errors import OptionError
from nanocap.student import Student


def test_weights_are_means(checkpoints: list[Path]) -> None:
    first, second = (Student.load(path)[0].state_dict() for path in checkpoints)
    mean, _ = average(checkpoints, [3, 1])
    for name, tensor in mean.state_dict().items():
        torch.testing.assert_close(tensor, 0.75 * first[name] + 0.25 * second[name])


def test_the_average_of_one_student_with_itself_is_that_student(checkpoints: list[Path]) -> None:
    mean, _ = average([checkpoints[0]] * 3, [1, 1, 1])
    for name, tensor in Student.load(checkpoints[0])[0].state_dict().items():
        torch.testing.assert_close(mean.state_dict()[name], tensor)


def test_the_command_writes_a_finished_student(checkpoints: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "mean.safetensors"
    arguments = ["average", *map(str, checkpoints), "--weights", "1,3", "--out", str(out)]
    result = CliRunner().invoke(group, arguments)
    assert result.exit_code == 0, result.output
    _, metadata = Student.load(out)
    assert metadata["tokenizer"] == Student.load(checkpoints[0])[1]["tokenizer"]
    parts = json.loads(metadata["training"])["averaged"]
    assert [(part["share"], part["seed"]) for part in parts] == [(0.25, 0), (0.75, 1)]
    again = CliRunner().invoke(group, arguments)
    assert again.exit_code != 0
    assert "already exists" in again.output


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [1.0, 1.0, 1.0]])
def test_weights_that_do_not_fit(checkpoints: list[Path], weights: list[float]) -> None:
    with pytest.raises(OptionError, match="weight"):
        average(checkpoints, weights)


def test_only_students_of_one_kind(checkpoints: list[Path], recipe: Recipe, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    _, metadata = Student.load(checkpoints[0])
    Student(replace(recipe.dimensions(), width=64)).save(
        other, {"tokenizer": metadata["tokenizer"]}
    )
    with pytest.raises(OptionError, match="other dimensions or another tokenizer"):
        average([checkpoints[0], other], [1, 1])
    Student(recipe.dimensions()).save(other, {"tokenizer": "another"})
    with pytest.raises(OptionError, match="other dimensions or another tokenizer"):
        average([checkpoints[0], other], [1, 1])
