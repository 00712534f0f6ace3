"""Beam search against full passes and against greedy decoding."""

from __future__ import annotations

import pytest
import torch

from nanocap.distill.recipes.recipe import Recipe
from nanocap.distill.teachers.rollout import beam_search, roll_out
from nanocap.student import Student
from nanocap.student.controls import END, SPECIALS

NEVER = [i for i in range(len(SPECIALS)) if i != END]


def opinionated(recipe: Recipe, seed: int) -> Student:
    torch.manual_seed(seed)
    student = Student(recipe.dimensions()).eval()
    for parameter in student.decoder.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return student


@pytest.fixture
def students(recipe: Recipe) -> list[Student]:
    return [opinionated(recipe, seed) for seed in (0, 1)]


@torch.no_grad()
def probabilities(student: Student, pixels: torch.Tensor, ids: list[int]) -> torch.Tensor:
    """[T, V]: of each piece of a row and of what follows it, from one full pass."""
    logits = student(pixels[None], torch.tensor([[[3, 6, *ids]]]))[0, 0, 1:]
    logits[:, NEVER] = float("-inf")
    return logits.softmax(-1)


def test_one_beam_is_greedy(students: list[Student]) -> None:
    pixels = torch.randn(3, 3, 64, 64)
    rows = roll_out(students[0], students[0].encoder(pixels), 1, sample=False)
    found = beam_search(students[:1], pixels, 1)
    assert [list(photo[0].ids) for photo in found] == [
        [piece for piece in row if piece != END] for row in rows
    ]


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_scores_are_those_of_full_passes(
    students: list[Student], members: int, penalty: float
) -> None:
    pixels = torch.randn(2, 3, 64, 64)
    longest = students[0].dimensions.max_tokens - 1
    for photo, hypotheses in enumerate(beam_search(students[:members], pixels, 4, penalty)):
        assert len({one.ids for one in hypotheses}) == 4
        scores = [one.score for one in hypotheses]
        assert scores == sorted(scores, reverse=True)
        for one in hypotheses:
            ids = list(one.ids)
            each = [probabilities(s, pixels[photo], ids[: longest - 1]) for s in students[:members]]
            mean = torch.stack(each).mean(0)
            mean[0, END] = 0.0  # an empty caption is no answer
            mean = (mean / mean.sum(-1, keepdim=True)).log()
            drawn = ids if len(ids) == longest else [*ids, END]
            total = sum(float(mean[place, piece]) for place, piece in enumerate(drawn))
            assert one.score == pytest.approx(total / len(drawn) ** penalty, abs=1e-4)


def test_more_beams_find_nothing_worse(students: list[Student]) -> None:
    pixels = torch.randn(4, 3, 64, 64)
    one, many = (beam_search(students[:1], pixels, beams, 0.0) for beams in (1, 8))
    gains = [wide[0].score - narrow[0].score for wide, narrow in zip(many, one, strict=True)]
    assert min(gains) > -1e-4
