"""A stage that prunes, through the command; and what a kill does to it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from nanocap.distill.data.corpus import Corpus
from nanocap.distill.pruning.axes import find_axes
from nanocap.distill.pruning.budget import prunable
from nanocap.distill.recipes.recipe import Recipe, check
from nanocap.distill.training.run import Run, Start
from nanocap.distill.training.trainer import train
from nanocap.errors import NanocapError, RecipeError
from nanocap.student import Student

KEEP = ('kind = "supervised"\nsteps = 9', 'kind = "supervised"\nsteps = 9\nkeep = 0.5')


@pytest.fixture
def pruning(recipe: Recipe) -> Recipe:
    """A stage that prunes and one that trains what is left."""
    first, second, _ = recipe.stages
    stages = (replace(first, keep=0.5), replace(second, name="recover", train=("decoder",)))
    return replace(recipe, stages=stages)


def share_left(path: Path, recipe: Recipe) -> float:
    student, _ = Student.load(path)
    whole = prunable(find_axes(recipe.dimensions()))
    return prunable(find_axes(student.dimensions)) / whole


def test_a_stage_prunes_and_the_next_goes_on(
    pruning: Recipe, corpus: Corpus, tmp_path: Path
) -> None:
    run = Run(pruning, corpus, tmp_path / "run", tmp_path)
    final = train(run, Accelerator(cpu=True))
    for path in (run.finished(0), run.finished(1), final):
        assert 0.46 < share_left(path, pruning) <= 0.5
    lines = [json.loads(line) for line in (run.out / "metrics.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in lines] == [0] * 9 + [1] * 6
    assert "cider" in lines[4]  # of the student with masks half shrunk
    student, metadata = Student.load(final)
    assert json.loads(metadata["training"])["keep"] == {"maps": 0.5}
    # the photos set aside are captioned by the very student that is written
    assert lines[8]["aside_loss"] == pytest.approx(lines[9]["loss"], abs=1.5)
    # and a run may go on from it without saying its widths
    start = Start(final)
    assert start.student(pruning.dimensions()).dimensions == student.dimensions
    other = replace(pruning.dimensions(), pruned=pruning.dimensions().whole)
    with pytest.raises(RecipeError, match="has pruned"):
        start.student(other)


def test_a_self_critical_stage_prunes_too(recipe: Recipe, corpus: Corpus, tmp_path: Path) -> None:
    stage = replace(recipe.stages[2], keep=0.6, steps=3)
    run = Run(replace(recipe, stages=(stage,)), corpus, tmp_path / "run", tmp_path)
    assert 0.55 < share_left(train(run, Accelerator(cpu=True)), recipe) <= 0.6


def test_an_interrupted_stage_goes_on_to_the_same_student(
    pruning: Recipe, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(pruning, stages=pruning.stages[:1])
    whole, stopped = (Run(recipe, corpus, tmp_path / name, tmp_path) for name in ("a", "b"))
    train(whole, Accelerator(cpu=True))
    steps, step = 0, torch.optim.AdamW.step

    def power_cut(*arguments: Any, **more: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps > 6:  # past the checkpoint at 4
            raise KeyboardInterrupt
        return step(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", power_cut)
        with pytest.raises(KeyboardInterrupt):
            train(stopped, Accelerator(cpu=True))
    assert stopped.checkpoint.exists()
    other = replace(recipe, stages=(replace(recipe.stages[0], keep=0.6),))
    with pytest.raises(RecipeError, match="made by another recipe; choose another --out"):
        train(replace(stopped, recipe=other), Accelerator(cpu=True))
    train(stopped, Accelerator(cpu=True))
    ours, theirs = (load_file(run.out / "student.safetensors") for run in (stopped, whole))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.slow
def test_a_killed_stage_goes_on_as_if_nothing_had_been(
    program: Any, write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    recipe = write_recipe(KEEP, stages=1)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    program.run(recipe, whole)
    process = program.start(recipe, killed)
    journal = killed / "metrics.jsonl"
    while process.poll() is None:
        if journal.exists() and journal.read_bytes().count(b"\n") >= 6:  # past a checkpoint, at 4
            process.kill()
            break
        time.sleep(0.005)
    process.communicate()
    assert (killed / "checkpoint.safetensors").exists()
    other = write_recipe(KEEP, ("keep = 0.5", "keep = 0.6"), stages=1)
    refused = program.invoke(other, killed)
    assert refused.exit_code == 2
    assert "made by another recipe; choose another --out, or delete it" in refused.stderr
    program.run(write_recipe(KEEP, stages=1), killed)
    ours, theirs = (load_file(out / "student.safetensors") for out in (killed, whole))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("keep", [0.0, 1.5])
def test_a_share_that_is_none(recipe: Recipe, keep: float) -> None:
    stage = replace(recipe.stages[0], keep=keep)
    with pytest.raises(RecipeError) as caught:
        check(replace(recipe, stages=(stage,)))
    assert str(caught.value) == (f"stages[0].keep is a share above 0 and at most 1, not {keep:g}")


def test_a_share_that_is_too_small_is_known_at_once(
    recipe: Recipe, corpus: Corpus, tmp_path: Path
) -> None:
    last = replace(recipe.stages[-1], keep=0.01)
    small = replace(recipe, stages=(*recipe.stages[:-1], last))
    run = Run(small, corpus, tmp_path / "run", tmp_path)
    with pytest.raises(NanocapError, match=r"^keep 0.01 leaves some heads no channel"):
        train(run, Accelerator(cpu=True))
    assert not run.out.exists()
