"""Cached lessons: they are what the teachers would have said, and they are asked for once."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nanocap.distill.data.batches import CaptionTable, Schedule, pack
from nanocap.distill.data.corpus import Corpus
from nanocap.distill.data.feature_cache import Maps
from nanocap.distill.recipes.recipe import Recipe
from nanocap.distill.training.losses import (
    CaptionLoss,
    Guidance,
    divergence,
    imitation,
    relation,
    top_divergence,
)
from nanocap.distill.training.teacher_logits_cache import TOP, Lessons
from nanocap.distill.training.white_box_teachers import Guides, Watching
from nanocap.student import Student

CPU = torch.device("cpu")


def test_all_pieces_give_the_whole_divergence() -> None:
    student, teacher = torch.randn(2, 5, 12)
    top = teacher.softmax(-1).topk(12)
    found = top_divergence(student, top.indices, top.values)
    torch.testing.assert_close(found, divergence(student, [teacher]), rtol=1e-3, atol=1e-4)


@given(st.integers(0, 2**32 - 1), st.integers(1, 11))
def test_fewer_pieces_never_say_more(seed: int, top: int) -> None:
    """To merge outcomes loses information: the data-processing inequality."""
    random = torch.Generator().manual_seed(seed)
    student, teacher = 3 * torch.randn(2, 5, 12, generator=random)
    kept = teacher.softmax(-1).topk(top)
    found = top_divergence(student, kept.indices, kept.values)
    assert float(found.min()) > -1e-3
    assert bool((found <= divergence(student, [teacher]) + 1e-3).all())
    same = top_divergence(teacher, kept.indices, kept.values)
    assert float(same.abs().max()) < 1e-3


@pytest.mark.parametrize("term", [imitation, relation])
def test_looking_alike_costs_nothing(term: Any) -> None:
    theirs = torch.randn(6, 16)
    ours = (2.5 * theirs).requires_grad_()
    loss = term(ours, theirs)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.0, abs=1e-6)
    assert ours.grad is not None
    assert float(ours.grad.abs().max()) < 1e-6
    assert float(term(torch.randn(6, 16), theirs)) > 0.05


@pytest.mark.parametrize("term", [imitation, relation])
@pytest.mark.parametrize("channels", [16, 40])  # of the teachers: as many as the student's, or more
def test_the_gradient_of_what_is_seen_is_right(term: Any, channels: int) -> None:
    ours, theirs = torch.randn(4, 16).double(), torch.randn(4, channels).double()
    assert torch.autograd.gradcheck(lambda x: term(x, theirs), ours.requires_grad_())


def test_relations_do_not_mind_a_turn_of_the_space() -> None:
    ours, theirs = torch.randn(6, 16), torch.randn(6, 16)
    turn, _ = torch.linalg.qr(torch.randn(16, 16))
    torch.testing.assert_close(relation(ours @ turn, theirs), relation(ours, theirs))


@pytest.fixture
def lessons(recipe: Recipe, corpus: Corpus, checkpoints: list[Path], tmp_path: Path) -> Any:
    """Lessons of these teachers for the recipe's first stage, with its schedule and table."""
    schedule = Schedule(recipe, corpus, 0)
    table = CaptionTable(recipe, corpus, recipe.dimensions().max_tokens)

    (tmp_path / "cache").mkdir()

    def make(paths: list[Path]) -> Lessons:
        of_run = (2, tmp_path / "cache", CPU)
        return Lessons(corpus, schedule, table, Guides(paths), *of_run)

    return schedule, table, make


def batch(schedule: Schedule, table: CaptionTable, step: int) -> tuple[list[int], list[int], Any]:
    photos = [int(photo) for photo in schedule.photos(step)]
    places = list(range(len(photos)))
    drawn = [table.draw(photo, schedule.random(step, q, 1), 2) for q, photo in enumerate(photos)]
    image = [index for index, rows in enumerate(drawn) for _ in rows]
    return photos, places, pack([row for rows in drawn for row in rows], image)


def test_they_are_what_the_teachers_say_about_the_same_views(
    lessons: Any, recipe: Recipe, corpus: Corpus, checkpoints: list[Path], tmp_path: Path
) -> None:
    schedule, table, make = lessons
    cached, guides = make(checkpoints), Guides(checkpoints)
    student = Student(recipe.dimensions())
    feeds = guides.feeds(corpus, schedule, 2, tmp_path / "cache")
    for step in range(3):
        photos, places, captions = batch(schedule, table, step)
        maps: Tensor = feeds[0].inputs(step, photos, places)
        asked = Watching(guides.look([f.inputs(step, photos, places) for f in feeds], True))
        lesson = cached.look(step, photos, places, captions)
        torch.testing.assert_close(lesson.seen, asked.seen, rtol=2e-2, atol=2e-3)
        ones, learner = torch.ones(len(captions.image)), CaptionLoss(student)
        with torch.no_grad():
            losses = [
                float(learner(maps, True, captions, 0.0, ones, Guidance(teaching, 1.0)))
                for teaching in (lesson, asked)
            ]
        # these teachers know nothing, so that the few pieces hold a small part of what they say
        assert recipe.data.vocabulary > TOP
        assert 0 < losses[0] <= losses[1] * 1.01


def test_a_student_that_equals_its_teacher_has_nothing_to_learn(
    lessons: Any, recipe: Recipe, corpus: Corpus, checkpoints: list[Path], tmp_path: Path
) -> None:
    schedule, table, make = lessons
    teacher = Guides(checkpoints[:1]).students[0]
    student = copy.deepcopy(teacher).requires_grad_()
    photos, places, captions = batch(schedule, table, 0)
    maps = Maps(corpus, schedule, teacher, 2, tmp_path / "cache")
    guidance = Guidance(
        make(checkpoints[:1]).look(0, photos, places, captions), 1.0, imitation=1.0, relation=1.0
    )
    inputs, rows = maps.inputs(0, photos, places), len(captions.image)
    loss = CaptionLoss(student)(inputs, True, captions, 0.0, torch.ones(rows), guidance) / rows
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.0, abs=2e-3)
    largest = max(float(p.grad.abs().max()) for p in student.parameters() if p.grad is not None)
    assert largest < 2e-2


def test_teachers_are_asked_once(
    lessons: Any, checkpoints: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, make = lessons
    make(checkpoints[:1])
    files = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "cache").glob("lessons-*")}
    assert len(files) == 4  # two views of one source: places, and what is seen
    make(checkpoints[:1])
    again = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "cache").glob("lessons-*")}
    assert again == files
    make(checkpoints[1:])
    assert len(list((tmp_path / "cache").glob("lessons-*"))) == 8


def test_a_run_learns_from_a_teacher_with_other_trunks(
    checkpoints: list[Path], recipe: Recipe, write_recipe: Any, program: Any, tmp_path: Path
) -> None:
    """A large teacher: two trunks side by side, wider, and of the student's vocabulary only."""
    _, header = Student.load(checkpoints[0])
    values = {**recipe.dimensions().to_dict(), "trunk": "lite0+edgetpu", "width": 48}
    torch.manual_seed(5)
    Student(type(recipe.dimensions()).from_dict(values)).save(tmp_path / "large", header)
    named = json.dumps([str(tmp_path / "large"), str(checkpoints[0])])
    path = write_recipe(
        ('imagenet = ""', f'imagenet = ""\nteachers = {named}'),
        ("steps = 9", "steps = 9\ndistillation = 0.5\nimitation = 0.1\nrelation = 0.1"),
        stages=1,
    )
    result = program.invoke(path, tmp_path / "run")
    assert result.exit_code == 0, result.output
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines if "loss" in line]
    assert len(losses) == 9
    assert losses[-1] < losses[0]
