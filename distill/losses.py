"""Losses over rows of captions, as sums: the trainer divides by the global count."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nanocap.distill.batches import Captions
from nanocap.distill.tokenizer import PAD
from nanocap.student import Student


class CaptionLoss(nn.Module):
    """Forward pass of a batch down to its loss, as one module that can be spread over processes."""

    def __init__(self, student: Student):
        super().__init__()
        self.student = student

    def forward(
        self, inputs: Tensor, from_maps: bool, captions: Captions, smoothing: float, advantage: Tensor
    ) -> Tensor:
        """Sum over the target tokens of label-smoothed cross-entropy, weighted by row.

        Args:
            inputs: normalized pixels [B, 3, S, S], or the trunk's middle maps if `from_maps`.
            captions: rows over the B photos.
            smoothing: label smoothing, as in `torch.nn.functional.cross_entropy`.
            advantage: [rows]; ones for supervised training. Self-critical training weighs the
                log-probability of a sampled row by how much better than its peers it scored.
        """
        encoder, decoder = self.student.encoder, self.student.decoder
        visual = encoder.from_map(inputs) if from_maps else encoder(inputs)
        keys, values = decoder.cross(visual)
        keys, values = keys[:, captions.image], values[:, captions.image]
        states = decoder.states(captions.tokens.unsqueeze(1), keys, values).squeeze(1)
        counted = captions.targets != PAD  # most places of a padded batch ask for nothing
        logits = decoder.logits(states[counted])
        loss = F.cross_entropy(
            logits.float(), captions.targets[counted], label_smoothing=smoothing, reduction="none"
        )
        weight = advantage.unsqueeze(1).expand_as(counted)[counted]
        return (loss * weight).sum()


def target_count(captions: Captions) -> int:
    """How many tokens a batch is asked for."""
    return int(torch.count_nonzero(captions.targets != PAD))
