"""Teachers that cannot be loaded, and a student that goes on from another."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nanocap.distill.data.corpus import prepare
from nanocap.distill.recipes.recipe import Recipe
from nanocap.distill.teachers import load_teacher
from nanocap.distill.training.run import Start
from nanocap.errors import NanocapError, OptionError, RecipeError
from nanocap.student import Student


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("blip", "KIND:REST; kinds are student, hf, file, ensemble"),
        ("oracle:x", "KIND:REST"),
        ("student:nowhere.safetensors", "no such checkpoint"),
    ],
)
def test_teachers_that_cannot_be_loaded(spec: str, message: str) -> None:
    with pytest.raises(NanocapError, match=message):
        load_teacher(spec)


def test_a_student_needs_its_tokenizer(checkpoints: list[Path], recipe: Recipe) -> None:
    other = checkpoints[0].with_name("other.safetensors")
    Student(recipe.dimensions()).save(other)
    for spec in (f"student:{other}", f"ensemble:{checkpoints[0]},{other}"):
        with pytest.raises(OptionError, match="no tokenizer"):
            load_teacher(spec)


def test_a_run_goes_on_from_a_student_and_its_tokenizer(
    checkpoints: list[Path], write_recipe: Any, program: Any, tmp_path: Path
) -> None:
    start = checkpoints[1]
    recipe = write_recipe(
        ('imagenet = ""', f'imagenet = ""\nstart = "{start}"'),
        ("aside = 6", "aside = 5"),  # another corpus, which would have a tokenizer of its own
        ("steps = 9", "steps = 1"),
        stages=1,
    )
    result = program.invoke(recipe, tmp_path / "run")
    assert result.exit_code == 0, result.output
    before, header = Student.load(start)
    after, ours = Student.load(tmp_path / "run" / "student.safetensors")
    assert ours["tokenizer"] == header["tokenizer"]
    assert json.loads(ours["training"])["start"] == json.loads(header["training"])
    moved = [
        float((a - b).detach().abs().max())
        for a, b in zip(after.parameters(), before.parameters(), strict=True)
    ]
    assert 0 < max(moved) < 1e-3  # one step of the warm-up away, not another beginning


def test_a_start_must_fit(checkpoints: list[Path], recipe: Recipe) -> None:
    start = Start(checkpoints[0])
    assert start.student(recipe.dimensions()).dimensions == recipe.dimensions()
    with pytest.raises(RecipeError, match="width 32, but the recipe asks for 64"):
        start.student(replace(recipe.dimensions(), width=64))
    fewer = start.student(replace(recipe.dimensions(), reducer="pool", keep=(4,)))
    assert fewer.encoder(torch.zeros(1, 3, 64, 64)).tokens.shape == (1, 4, 32)
    Student(recipe.dimensions()).save(checkpoints[1])  # as a stage leaves it
    with pytest.raises(RecipeError, match="must be a finished student"):
        Start(checkpoints[1])


def test_a_copied_corpus_serves_where_its_photos_are_not(
    recipe: Recipe, drawn: Path, tmp_path: Path
) -> None:
    made = prepare(recipe, drawn, tmp_path)
    assert prepare(recipe, tmp_path / "elsewhere", tmp_path).folder == made.folder
