"""The scorer's three terms: plain references, invariances, minima and gradients."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nanocap.distill.scorer.losses import (
    contrast,
    likeness,
    masked_language,
    soft_targets,
)
from nanocap.scorer.scorer import PHOTOS_AT_ONCE, late_interaction

IMAGE = torch.tensor([0, 0, 1, 2, 2])  # the photo of each text
POSITIVE = torch.arange(3)[:, None] == IMAGE[None, :]


def unit(*shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape), dim=-1)


def test_targets_give_the_positives_all_but_the_share() -> None:
    targets = soft_targets(POSITIVE, 0.3)
    assert targets[0].tolist() == pytest.approx([0.35, 0.35, 0.1, 0.1, 0.1])
    assert targets[1].tolist() == pytest.approx([0.075, 0.075, 0.7, 0.075, 0.075])
    assert soft_targets(POSITIVE, 0.0)[2].tolist() == [0, 0, 0, 0.5, 0.5]


def test_the_share_goes_to_what_is_alike() -> None:
    like = torch.tensor([[9.0, 9, 2, 0, 0]]).repeat(3, 1)
    row = soft_targets(POSITIVE, 0.3, like)[0]
    assert row[:2].tolist() == pytest.approx([0.35, 0.35])
    assert (row[2] / row[3]).item() == pytest.approx(math.e**2, rel=1e-4)
    assert row.sum().item() == pytest.approx(1)


def test_without_negatives_nothing_is_softened() -> None:
    assert soft_targets(torch.ones(1, 2, dtype=torch.bool), 0.5).tolist() == [[0.5, 0.5]]


def test_likeness_is_the_mean_cosine_with_a_photos_own_texts() -> None:
    text = unit(5, 4)
    like = likeness(text.clone().requires_grad_(), IMAGE, 3)
    for photo, row in product(range(3), range(5)):
        own = [float(text[row] @ text[o]) for o in range(5) if IMAGE[o] == photo]
        assert like[photo, row].item() == pytest.approx(sum(own) / len(own), abs=1e-6)
    assert not like.requires_grad


def test_contrast_is_infonce_less_the_targets_entropy() -> None:
    logits, targets = torch.randn(3, 5), soft_targets(POSITIVE, 0.2)
    total = 0.0
    for b in range(3):
        norm = math.log(sum(math.exp(float(x)) for x in logits[b]))
        for r in range(5):
            target = float(targets[b, r])
            total += target * (math.log(target) - (float(logits[b, r]) - norm))
    assert contrast(logits, targets).item() == pytest.approx(total / 3, rel=1e-5)


def test_contrast_with_one_positive_is_cross_entropy() -> None:
    logits, one = torch.randn(4, 4), torch.eye(4, dtype=torch.bool)
    expected = F.cross_entropy(logits, torch.arange(4))
    torch.testing.assert_close(contrast(logits, soft_targets(one, 0.0)), expected)


def test_contrast_is_zero_at_its_minimum_and_there_has_no_gradient() -> None:
    targets = soft_targets(POSITIVE, 0.2)
    logits = targets.log().requires_grad_()
    loss = contrast(logits, targets)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert logits.grad is not None
    assert logits.grad.abs().max().item() < 1e-6
    assert contrast(logits + torch.randn(3, 5), targets).item() > 0


def test_gradient_of_contrast() -> None:
    logits = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    targets = soft_targets(POSITIVE, 0.2).double()

    def wide(x: Tensor) -> Tensor:  # the loss itself is float32, too coarse for differences
        return F.kl_div(x.log_softmax(1), targets, reduction="batchmean")

    assert torch.autograd.gradcheck(wide, logits)
    (expected,) = torch.autograd.grad(wide(logits), logits)
    (found,) = torch.autograd.grad(contrast(logits, targets.float()), logits)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_the_order_of_a_batch_changes_nothing() -> None:
    text, logits = unit(5, 4), torch.randn(3, 5)
    order, photos = torch.tensor([3, 0, 4, 2, 1]), torch.tensor([2, 0, 1])

    def loss(text: Tensor, image: Tensor, logits: Tensor) -> Tensor:
        positive = torch.arange(3)[:, None] == image[None, :]
        like = 3 * likeness(text, image, 3)
        by_text = contrast(logits.T, soft_targets(positive.T, 0.2, like.T))
        return contrast(logits, soft_targets(positive, 0.2, like)) + by_text

    renamed = photos.argsort()[IMAGE[order]]
    moved = loss(text[order], renamed, logits[photos][:, order])
    torch.testing.assert_close(moved, loss(text, IMAGE, logits))


def test_late_interaction_written_out() -> None:
    photos = PHOTOS_AT_ONCE + 1
    visual, pieces = unit(photos, 3, 4), unit(3, 5, 4)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]])
    by_visual, by_piece = late_interaction(visual, pieces, mask)
    for b, r in product(range(photos), range(3)):
        present = [t for t in range(5) if mask[r, t]]
        cosine = {(n, t): float(visual[b, n] @ pieces[r, t]) for n in range(3) for t in present}
        rows = [max(cosine[n, t] for t in present) for n in range(3)]
        columns = [max(cosine[n, t] for n in range(3)) for t in present]
        assert by_visual[b, r].item() == pytest.approx(sum(rows) / 3, abs=1e-6)
        assert by_piece[b, r].item() == pytest.approx(sum(columns) / len(present), abs=1e-6)


def test_late_interaction_ignores_padding_and_the_order_of_tokens() -> None:
    visual, pieces = unit(2, 6, 4), unit(3, 4, 4)
    mask = torch.ones(3, 4)
    expected = late_interaction(visual, pieces, mask)
    padded = torch.cat([pieces, unit(3, 2, 4)], 1), torch.cat([mask, torch.zeros(3, 2)], 1)
    shuffled = visual[:, torch.randperm(6)], pieces[:, torch.randperm(4)]
    torch.testing.assert_close(late_interaction(visual, *padded), expected)
    torch.testing.assert_close(late_interaction(*shuffled, mask), expected)


def test_tokens_that_are_the_same_match_wholly() -> None:
    tokens = unit(1, 4, 8)
    by_visual, by_piece = late_interaction(tokens, tokens, torch.ones(1, 4))
    assert by_visual.item() == pytest.approx(1)
    assert by_piece.item() == pytest.approx(1)


def test_gradient_of_late_interaction() -> None:
    visual = unit(2, 3, 4).double().requires_grad_()
    pieces = unit(2, 3, 4).double().requires_grad_()
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    assert torch.autograd.gradcheck(lambda v, p: late_interaction(v, p, mask), (visual, pieces))


def test_masked_language_is_mean_cross_entropy() -> None:
    logits, pieces = torch.randn(3, 7), torch.tensor([2, 0, 6])
    rows = [-float(logits[i].log_softmax(0)[piece]) for i, piece in enumerate(pieces)]
    assert masked_language(logits, pieces).item() == pytest.approx(sum(rows) / 3, rel=1e-5)
    sure = F.one_hot(pieces, 7) * 100.0
    assert masked_language(sure, pieces).item() == pytest.approx(0, abs=1e-6)
    even = torch.zeros(3, 7)
    assert masked_language(even, pieces).item() == pytest.approx(math.log(7), rel=1e-5)


def test_nothing_hidden_costs_nothing() -> None:
    logits = torch.randn(0, 7, requires_grad=True)
    assert masked_language(logits, torch.zeros(0, dtype=torch.int64)).item() == 0


def test_gradient_of_masked_language() -> None:
    logits = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: masked_language(x, torch.tensor([2, 0, 6])), logits)
