"""Losses over rows of captions, as sums: the trainer divides by the global count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nanocap.distill.batches import Captions
from nanocap.distill.tokenizer import PAD
from nanocap.student import Student
from nanocap.student.decoder import Decoder

LENGTH_PARTS = 4


@dataclass(frozen=True)
class Guidance:
    """What white-box teachers see in the photos of a batch, to learn their distributions from.

    Attributes:
        sights: each teacher's decoder with its own visual tokens of the B photos.
        share: of the loss that the divergence from their mean takes over from cross-entropy.
    """

    sights: Sequence[tuple[Decoder, Tensor]]
    share: float


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
        guidance: Guidance | None = None,
    ) -> Tensor:
        """Sum over the target tokens of label-smoothed cross-entropy, weighted by row.

        Args:
            inputs: normalized pixels [B, 3, S, S], or the trunk's middle maps if `from_maps`.
            captions: rows over the B photos.
            smoothing: label smoothing, as in `torch.nn.functional.cross_entropy`.
            advantage: [rows]; ones for supervised training. Self-critical training weighs the
                log-probability of a sampled row by how much better than its peers it scored.
            guidance: teachers to learn from beside the captions.
        """
        encoder = self.student.encoder
        visual = encoder.from_map(inputs) if from_maps else encoder(inputs)
        decoder = self.student.decoder
        return cross_entropy(decoder, visual, captions, smoothing, advantage, guidance)


def cross_entropy(
    decoder: Decoder,
    visual_BNC: Tensor,
    captions: Captions,
    smoothing: float,
    advantage: Tensor,
    guidance: Guidance | None = None,
) -> Tensor:
    """The sum that `CaptionLoss` gives, from visual tokens on."""
    ours = Reader(decoder, visual_BNC)
    with torch.no_grad():
        theirs = [Reader(*sight) for sight in guidance.sights] if guidance is not None else []
    total = visual_BNC.new_zeros((), dtype=torch.float32)
    for part in by_length(captions):
        tokens, targets, image = (
            captions.tokens[part],
            captions.targets[part],
            captions.image[part],
        )
        longest = int((targets != PAD).nonzero()[:, 1].max()) + 1
        tokens, targets = tokens[:, :longest], targets[:, :longest]
        counted = targets != PAD
        logits = ours.logits(tokens, image, counted)
        loss = F.cross_entropy(
            logits, targets[counted], label_smoothing=smoothing, reduction="none"
        )
        if guidance is not None:
            with torch.no_grad():
                seen = [reader.logits(tokens, image, counted) for reader in theirs]
            loss = (1 - guidance.share) * loss + guidance.share * divergence(logits, seen)
        weight = advantage[part].unsqueeze(1).expand_as(counted)[counted]
        total = total + (loss * weight).sum()
    return total


def divergence(logits: Tensor, teachers: Sequence[Tensor]) -> Tensor:
    """Kullback-Leibler divergence of a student from the mean distribution of its teachers.

    Hinton et al., "Distilling the knowledge in a neural network" (2015), at temperature 1: the
    mean over teachers is soft enough.

    Args:
        logits: the student's, [N, V].
        teachers: the same of each teacher.
    Returns:
        [N], in nats; zero where the student says what the teachers say on average.
    """
    mean = torch.stack([one.softmax(-1) for one in teachers]).mean(0)
    return F.kl_div(logits.log_softmax(-1), mean, reduction="none").sum(-1)


class Reader:
    """A decoder that looks at the photos of a batch."""

    def __init__(self, decoder: Decoder, visual_BNC: Tensor):
        self.decoder = decoder
        self.keys, self.values = decoder.cross(visual_BNC)

    def logits(self, tokens: Tensor, image: Tensor, counted: Tensor) -> Tensor:
        """Float logits [counted, V] of rows [rows, T] about the photos `image`."""
        keys, values = self.keys[:, image], self.values[:, image]
        states = self.decoder.states(tokens.unsqueeze(1), keys, values)
        return self.decoder.logits(states.squeeze(1)[counted]).float()


def by_length(captions: Captions) -> tuple[Tensor, ...]:
    """Indices of the rows in a few parts of similar length: padding would cost twice the work."""
    lengths = (captions.targets != PAD).sum(1)
    return lengths.argsort(stable=True).chunk(LENGTH_PARTS)


def target_count(captions: Captions) -> int:
    """How many tokens a batch is asked for."""
    return int(torch.count_nonzero(captions.targets != PAD))
