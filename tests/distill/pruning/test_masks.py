"""Masks in training: found by gradient, shrunk to nothing, never felt by the student's own code."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nanocap.distill.pruning.axes import find_axes
from nanocap.distill.pruning.budget import prunable
from nanocap.distill.pruning.masks import Masks, progress
from nanocap.distill.pruning.slicing import slice_student
from nanocap.distill.recipes.recipe import Recipe
from nanocap.student import Student

STEPS = 6


def logits(student: Student) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(2, 3, 64, 64, generator=generator)
    return student(pixels, torch.randint(0, 80, (2, 2, 9), generator=generator))


def look(student: Student, masks: Masks, step: int) -> None:
    """One step of a search over one batch."""
    masks.shrink(step, STEPS)
    logits(student).square().mean().backward()
    masks.collect()


@pytest.fixture
def student(recipe: Recipe) -> Student:
    student = Student(recipe.dimensions()).eval()
    with torch.no_grad():
        for parameter in student.decoder.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return student


def test_the_share_grows_from_nothing_to_all() -> None:
    shares = [progress(step, 50) for step in range(50)]
    assert shares[0] == 0.0
    assert shares[-1] == 1.0
    assert shares == sorted(shares)
    assert progress(0, 1) == 1.0  # a single step is the last one


def test_masks_of_ones_change_nothing(student: Student) -> None:
    before = logits(student)
    masks = Masks(student, 0.5)
    assert torch.equal(logits(student), before)
    masks.shrink(0, STEPS)
    assert torch.equal(logits(student), before)


def test_the_last_step_has_zeros_and_ones_and_the_budget(student: Student) -> None:
    masks = Masks(student, 0.5)
    seen = []
    for step in range(STEPS):
        look(student, masks, step)
        values = torch.cat([v for n, v in student.state_dict().items() if n.endswith(".mask")])
        seen.append(float((values < 1).float().mean()))
        lowest = float(values.min())
        assert lowest == pytest.approx(1 - progress(step, STEPS)) or seen[-1] == 0
    assert seen[0] == 0
    assert seen == sorted(seen)  # more and more begin to go
    assert set(values.tolist()) == {0.0, 1.0}
    axes, kept = find_axes(student.dimensions), masks.kept()
    parameters = sum(
        axis.cost * int(kept[axis.sites[0].masked].sum()) // axis.sites[0].heads for axis in axes
    )
    assert 0.45 < parameters / prunable(axes) <= 0.5


def test_the_masked_student_is_the_sliced_one(student: Student) -> None:
    state = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    masks = Masks(student, 0.4)
    for step in range(STEPS):
        look(student, masks, step)
    sliced = slice_student(student.dimensions, state, masks.kept())
    folded = Student(student.dimensions).eval()
    folded.load_state_dict(masks.fold(state))
    with torch.no_grad():
        torch.testing.assert_close(logits(sliced), logits(student), rtol=0, atol=1e-5)
        torch.testing.assert_close(logits(folded), logits(student), rtol=0, atol=1e-5)


def test_half_shrunk_masks_can_be_folded_as_well(student: Student) -> None:
    state = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    masks = Masks(student, 0.4)
    for step in range(STEPS // 2):
        look(student, masks, step)
    folded = Student(student.dimensions).eval()
    folded.load_state_dict(masks.fold(state))
    with torch.no_grad():
        torch.testing.assert_close(logits(folded), logits(student), rtol=0, atol=1e-5)


def test_the_gradient_of_a_mask_is_what_its_channel_is_worth(student: Student) -> None:
    """To first order: the loss without a channel differs by it from the loss with it."""
    masks = Masks(student, 0.5)
    name = "decoder.layers.0.mlp.down"
    layer = student.get_submodule(name)
    loss = logits(student).square().mean()
    loss.backward()
    mask = layer.mask
    assert isinstance(mask, torch.nn.Parameter)
    assert mask.grad is not None
    channel, small = int(mask.grad.abs().argmax()), 0.02
    worth = float(mask.grad[channel])
    with torch.no_grad():
        mask[channel] -= small
        without = logits(student).square().mean()
    assert float(loss.detach() - without) == pytest.approx(small * worth, rel=0.05)
    masks.collect()
    assert mask.grad is None
    assert float(layer.importance[channel]) == pytest.approx(abs(worth))  # type: ignore[operator,index]


def test_channels_that_do_nothing_go_first(student: Student) -> None:
    dead = torch.arange(128) % 4 == 1
    with torch.no_grad():
        for block in (student.decoder.layers[0], student.encoder.blocks[0]):
            block.mlp.down.weight[:, dead] = 0.0  # type: ignore[union-attr,operator,index]
    masks = Masks(student, 0.8)
    for step in range(STEPS):
        look(student, masks, step)
    for name in ("decoder.layers.0.mlp.down", "encoder.blocks.0.mlp.down"):
        assert not masks.kept()[name][dead].any()


def test_masks_belong_to_the_state(student: Student, recipe: Recipe) -> None:
    """A checkpoint restores them, with what the search has found so far."""
    masks = Masks(student, 0.5)
    for step in range(4):
        look(student, masks, step)
    other = Student(recipe.dimensions()).eval()
    again = Masks(other, 0.5)
    other.load_state_dict(student.state_dict())
    for step in range(4, STEPS):
        look(student, masks, step)
        look(other, again, step)
        for name, kept in masks.kept().items():
            assert torch.equal(again.kept()[name], kept)
