"""Losses over rows of captions, as sums: the trainer divides by the global count."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nanocap.distill.data.batches import Captions
from nanocap.student import Student
from nanocap.student.controls import PAD
from nanocap.student.decoder import Decoder
from nanocap.student.evidence import Seen, Told, with_copies

LENGTH_PARTS = 4
LEAST = 1e-5  # probability of all pieces that are not named, so that its logarithm exists


class Teaching(Protocol):
    """What white-box teachers make of a batch."""

    @property
    def seen(self) -> Tensor:
        """[B, channels], one vector a photo."""

    def divergence(
        self, logits: Tensor, part: Tensor, tokens: Tensor, image: Tensor, counted: Tensor
    ) -> Tensor:
        """Of the student's logits [counted, V] from the teachers' distribution: [counted], in nats.

        Args:
            part: the rows of the batch that these are.
            tokens: [rows, T] of the part, shortened to its longest.
            image: [rows], the photo of each row.
            counted: [rows, T], where a piece is asked for.
        """


@dataclass(frozen=True)
class Guidance:
    """What a step learns from teachers, and how much: weights of `imitation` and `relation`."""

    teaching: Teaching
    share: float  # of the loss that divergence from the teachers takes over from cross-entropy
    imitation: float = 0.0
    relation: float = 0.0


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
        told: Told | None = None,
        naming: Callable[[Seen], Tensor] | None = None,
    ) -> Tensor:
        """Sum over the target tokens of label-smoothed cross-entropy, weighted by row.

        Args:
            inputs: normalized pixels [B, 3, S, S], or the trunk's middle maps if `from_maps`.
            captions: rows over the B photos.
            smoothing: label smoothing, as in `torch.nn.functional.cross_entropy`.
            advantage: [rows]; ones for supervised training. Self-critical training weighs the
                log-probability of a sampled row by how much better than its peers it scored.
            guidance: teachers to learn from beside the captions.
            told: T captions whose rows belong to "photos" B to B + T - 1.
            naming: the loss of the concept head.
        """
        encoder = self.student.encoder
        photos = encoder.from_map(inputs) if from_maps else encoder(inputs)
        decoder = self.student.decoder
        seen = photos if told is None else decoder.and_told(photos, told)
        total = seen.tokens.new_zeros((), dtype=torch.float32)
        if len(captions.image):
            total = cross_entropy(decoder, seen, captions, smoothing, advantage, guidance)
        if naming is not None:
            total = total + naming(photos) * max(1, target_count(captions))
        if guidance is not None and (guidance.imitation or guidance.relation):
            ours, theirs = photos.tokens.float().mean(1), guidance.teaching.seen
            looks = guidance.imitation * imitation(ours, theirs)
            looks = looks + guidance.relation * relation(ours, theirs)
            total = total + looks * target_count(captions)
        return total


def cross_entropy(
    decoder: Decoder,
    seen: Seen,
    captions: Captions,
    smoothing: float,
    advantage: Tensor,
    guidance: Guidance | None = None,
) -> Tensor:
    """The sum that `CaptionLoss` gives, from what the encoder sees on."""
    ours = Reader(decoder, seen)
    total = seen.tokens.new_zeros((), dtype=torch.float32)
    for part in by_length(captions):
        tokens, targets = captions.tokens[part], captions.targets[part]
        image = captions.image[part]
        longest = int((targets != PAD).nonzero()[:, 1].max()) + 1
        tokens, targets = tokens[:, :longest], targets[:, :longest]
        counted = targets != PAD
        logits = ours.logits(tokens, image, counted)
        asked = targets[counted]
        loss = F.cross_entropy(logits, asked, label_smoothing=smoothing, reduction="none")
        if guidance is not None and guidance.share:
            apart = guidance.teaching.divergence(logits, part, tokens, image, counted)
            loss = (1 - guidance.share) * loss + guidance.share * apart
        weight = advantage[part].unsqueeze(1).expand_as(counted)[counted]
        total = total + (loss * weight).sum()
    return total


def mean_distribution(teachers: Sequence[Tensor]) -> Tensor:
    """The mean of the teachers' distributions, [N, V], from the logits of each."""
    return torch.stack([one.softmax(-1) for one in teachers]).mean(0)


def divergence(logits: Tensor, teachers: Sequence[Tensor]) -> Tensor:
    """Kullback-Leibler divergence [N], in nats, of a student from the mean of its teachers.

    All give logits [N, V]. Hinton et al., "Distilling the knowledge in a neural network" (2015), at
    temperature 1: the mean over teachers is soft enough.
    """
    mean = mean_distribution(teachers)
    return F.kl_div(logits.log_softmax(-1), mean, reduction="none").sum(-1)


def top_divergence(logits: Tensor, pieces: Tensor, probabilities: Tensor) -> Tensor:
    """The same from the likeliest pieces [N, K] of a distribution, with all others as one outcome.

    At most what the whole distribution would give, and zero where they agree.
    """
    ours = logits.log_softmax(-1).gather(1, pieces)
    rest_ours = (1 - ours.exp().sum(-1)).clamp_min(LEAST)
    rest = (1 - probabilities.sum(-1)).clamp_min(LEAST)
    kept = F.kl_div(ours, probabilities, reduction="none").sum(-1)
    return kept + rest * (rest.log() - rest_ours.log())


def imitation(ours: Tensor, theirs: Tensor) -> Tensor:
    """One minus the cosine of what student [B, width] and teachers [B, channels] see, on average.

    Li et al., "Distilling large vision-language model with out-of-distribution generalizability"
    (2023). Where the widths differ, the teachers' vectors are turned onto the student's width by
    a fixed random map, which keeps angles roughly: nothing has to be learned beside the student.
    """
    if theirs.shape[1] != ours.shape[1]:
        theirs = theirs @ _turn(theirs.shape[1], ours.shape[1]).to(theirs)
    return (1 - F.cosine_similarity(ours, theirs, dim=1)).mean()


def relation(ours: Tensor, theirs: Tensor) -> Tensor:
    """Mean squared difference of the cosines between photos, of [B, width] and [B, channels].

    Park et al., "Relational knowledge distillation" (2019); the relation structure of Li et al.
    (2023). Means over the batch are taken off first, since what all photos share says nothing.
    """
    return (_likeness(ours) - _likeness(theirs)).square().mean()


def _likeness(vectors: Tensor) -> Tensor:
    centred = F.normalize(vectors - vectors.mean(0), dim=1)
    return centred @ centred.T


@lru_cache(maxsize=4)
def _turn(channels: int, width: int) -> Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randn(channels, width, generator=random) / width**0.5


class Reader:
    """A decoder that looks at the photos of a batch."""

    def __init__(self, decoder: Decoder, seen: Seen):
        self.decoder, self.seen, self.memory = decoder, seen, decoder.cross(seen)

    def logits(self, tokens: Tensor, image: Tensor, counted: Tensor) -> Tensor:
        """Float logits [counted, V] of rows [rows, T] about the photos `image`."""
        memory = self.memory.some(image)
        states = self.decoder.states(tokens.unsqueeze(1), memory.keys, memory.values)
        normed = self.decoder.norm(states.squeeze(1))
        logits = self.decoder.logits(normed[counted]).float()
        evidence = memory.evidence
        if not evidence.shape[1]:
            return logits
        copies = self.decoder.copies(normed, memory.copy_keys).float()[counted]  # [counted, E]
        # whether a word has been fed by then
        said = (tokens.unsqueeze(2) == evidence.unsqueeze(1)).cumsum(1)[counted] > 0
        evidence = evidence.unsqueeze(1).expand(-1, tokens.shape[1], -1)[counted]
        one = (logits.unsqueeze(1), copies.unsqueeze(1), evidence, said.unsqueeze(1))
        return with_copies(*one).squeeze(1)


def by_length(captions: Captions) -> tuple[Tensor, ...]:
    """Indices of the rows in a few parts of similar length: padding would cost twice the work."""
    lengths = (captions.targets != PAD).sum(1)
    return lengths.argsort(stable=True).chunk(LENGTH_PARTS)


def target_count(captions: Captions) -> int:
    """How many tokens a batch is asked for."""
    return int(torch.count_nonzero(captions.targets != PAD))
