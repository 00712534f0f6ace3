"""Losses over rows of captions, as sums: the trainer divides by the global count."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nanocap.distill.batches import Captions
from nanocap.distill.tokenizer import PAD
from nanocap.student import Student
from nanocap.student.decoder import Decoder

LENGTH_PARTS = 4


class CaptionLoss(nn.Module):
    """Forward pass of a batch down to its loss, as one module that can be spread over processes."""

    def __init__(self, student: Student):
        super().__init__()
        self.student = student

    def forward(
        self,
        inputs: Tensor,
        from_maps: bool,
        captions: Captions,
        smoothing: float,
        advantage: Tensor,
    ) -> Tensor:
        """Sum over the target tokens of label-smoothed cross-entropy, weighted by row.

        Args:
            inputs: normalized pixels [B, 3, S, S], or the trunk's middle maps if `from_maps`.
            captions: rows over the B photos.
            smoothing: label smoothing, as in `torch.nn.functional.cross_entropy`.
            advantage: [rows]; ones for supervised training. Self-critical training weighs the
                log-probability of a sampled row by how much better than its peers it scored.
        """
        encoder = self.student.encoder
        visual = encoder.from_map(inputs) if from_maps else encoder(inputs)
        return cross_entropy(self.student.decoder, visual, captions, smoothing, advantage)


def cross_entropy(
    decoder: Decoder, visual_BNC: Tensor, captions: Captions, smoothing: float, advantage: Tensor
) -> Tensor:
    """The sum that `CaptionLoss` gives, from visual tokens on."""
    keys, values = decoder.cross(visual_BNC)
    total = visual_BNC.new_zeros((), dtype=torch.float32)
    for part in by_length(captions):
        tokens, targets, image = (
            captions.tokens[part],
            captions.targets[part],
            captions.image[part],
        )
        longest = int((targets != PAD).nonzero()[:, 1].max()) + 1
        tokens, targets = tokens[:, :longest], targets[:, :longest]
        states = decoder.states(tokens.unsqueeze(1), keys[:, image], values[:, image])
        counted = targets != PAD
        loss = F.cross_entropy(
            decoder.logits(states.squeeze(1)[counted]).float(),
            targets[counted],
            label_smoothing=smoothing,
            reduction="none",
        )
        weight = advantage[part].unsqueeze(1).expand_as(counted)[counted]
        total = total + (loss * weight).sum()
    return total


def by_length(captions: Captions) -> tuple[Tensor, ...]:
    """Indices of the rows in a few parts of similar length: padding would cost twice the work."""
    lengths = (captions.targets != PAD).sum(1)
    return lengths.argsort(stable=True).chunk(LENGTH_PARTS)


def target_count(captions: Captions) -> int:
    """How many tokens a batch is asked for."""
    return int(torch.count_nonzero(captions.targets != PAD))
