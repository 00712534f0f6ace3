"""The loss against cross-entropy written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nanocap.distill.data.batches import Captions, pack
from nanocap.distill.recipes.recipe import Recipe
from nanocap.distill.training.losses import CaptionLoss, by_length, target_count
from nanocap.student import Student
from nanocap.student.controls import END

ROWS = [
    [3, 6, 20, 21, 22, END],
    [3, 7, 30, END],
    [4, 8, 20, 30, 40, 50, 60, 70, END],
    [5, 6, END],
    [3, 6, 41, 42, 43, 44],
    [3, 6, 41, 42, 43, 44, 45, END],
]
IMAGE = [0, 0, 1, 1, 1, 0]


@pytest.fixture
def student(recipe: Recipe) -> Student:
    student = Student(recipe.dimensions()).eval()
    for parameter in student.decoder.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)  # else all logits are about zero
    return student


@pytest.fixture
def pixels() -> Tensor:
    return torch.randn(2, 3, 64, 64)


@torch.no_grad()
def by_hand(student: Student, pixels: Tensor, smoothing: float) -> list[float]:
    """Each row's loss, alone and piece by piece."""
    losses = []
    for row, image in zip(ROWS, IMAGE, strict=True):
        logits = student(pixels[image, None], torch.tensor([[row[:-1]]]))[0, 0]
        total = 0.0
        for position in range(1, len(row) - 1):
            logs = torch.log_softmax(logits[position].double(), dim=0)
            total -= (1 - smoothing) * float(logs[row[position + 1]])
            total -= smoothing * float(logs.mean())
        losses.append(total)
    return losses


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("from_maps", [False, True])
def test_the_sum_is_cross_entropy(
    student: Student, pixels: Tensor, smoothing: float, from_maps: bool
) -> None:
    weight = torch.tensor([1.0, 2.0, 0.5, 1.0, -1.0, 0.0])
    inputs = student.encoder.trunk.lower(pixels) if from_maps else pixels
    loss = CaptionLoss(student)(inputs, from_maps, pack(ROWS, IMAGE), smoothing, weight)
    rows = by_hand(student, pixels, smoothing)
    expected = sum(w * row for w, row in zip(weight.tolist(), rows, strict=True))
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_counts_are_of_pieces_and_ends() -> None:
    assert target_count(pack(ROWS, IMAGE)) == sum(len(row) - 2 for row in ROWS)


@pytest.mark.parametrize("rows", [1, 3, 4, 6])
def test_parts_hold_each_row_once_and_in_order_of_length(rows: int) -> None:
    captions = pack(ROWS[:rows], IMAGE[:rows])
    order = torch.cat(by_length(captions)).tolist()
    assert sorted(order) == list(range(rows))
    lengths = [len(ROWS[index]) for index in order]
    assert lengths == sorted(lengths)


def gradient(student: Student, pixels: Tensor, captions: Captions, weight: Tensor) -> Tensor:
    student.zero_grad()
    CaptionLoss(student)(pixels, False, captions, 0.1, weight).backward()
    return torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None])


def test_rows_of_no_weight_give_no_gradient(student: Student, pixels: Tensor) -> None:
    weight = torch.tensor([1.0, 0, 0, 0, 1, 0])
    all_rows = gradient(student, pixels, pack(ROWS, IMAGE), weight)
    chosen = pack([ROWS[0], ROWS[4]], [IMAGE[0], IMAGE[4]])
    torch.testing.assert_close(
        all_rows, gradient(student, pixels, chosen, torch.ones(2)), rtol=1e-3, atol=1e-5
    )
    assert float(gradient(student, pixels, pack(ROWS, IMAGE), torch.zeros(6)).abs().max()) == 0.0


def test_what_scored_better_becomes_likelier(student: Student, pixels: Tensor) -> None:
    """Self-critical training pulls rows of positive advantage up and pushes the others down."""
    better, worse = 0, 2  # of two photos
    before = by_hand(student, pixels, 0.0)
    weight = torch.zeros(len(ROWS))
    weight[better], weight[worse] = 0.7, -0.7
    optimizer = torch.optim.SGD(student.parameters(), lr=1e-3)
    loss = CaptionLoss(student)(pixels, False, pack(ROWS, IMAGE), 0.0, weight)
    (loss / target_count(pack(ROWS, IMAGE))).backward()
    optimizer.step()
    after = by_hand(student, pixels, 0.0)
    assert after[better] < before[better] - 1e-4
    assert after[worse] > before[worse] + 1e-4
