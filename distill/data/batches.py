"""Which photos and captions a step sees: a pure function of the seed and the step.

Nothing here has state, so a run that was killed goes on exactly where its checkpoint was, and a
process of several takes its share of the same global batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nanocap.distill.data.corpus import Corpus
from nanocap.distill.data.tokenizer import length_of
from nanocap.distill.recipes.recipe import Recipe
from nanocap.student.controls import LENGTH, PAD, PREFIX, QUALITY

ANY_LENGTH = 0.5  # share of captions whose length is not told


@dataclass(frozen=True)
class Captions:
    """Captions of a batch as rows: `tokens[r]` belongs to photo `image[r]`."""

    tokens: Tensor  # int64 [rows, T], control tokens first
    targets: Tensor  # int64 [rows, T], PAD where nothing is asked
    image: Tensor  # int64 [rows]

    def to(self, device: torch.device) -> Captions:
        """The same on another device."""
        return Captions(self.tokens.to(device), self.targets.to(device), self.image.to(device))


class Schedule:
    """The order of photos: weighted epochs, each shuffled by (seed, stage, epoch)."""

    def __init__(self, recipe: Recipe, corpus: Corpus, stage: int):
        self.seed, self.stage, self.batch = recipe.seed, stage, recipe.stages[stage].batch
        weights = {source.name: source.weight for source in recipe.data.sources}
        self._rows = np.array(corpus.training())
        self._weights = np.array([weights[corpus.rows[i].source] for i in self._rows])
        self.epoch_length = max(self.batch, int(self._weights.sum()))  # photos

    def photos(self, step: int) -> NDArray[np.int64]:
        """Rows of the corpus in the global batch of a step."""
        first = step * self.batch
        return np.array([self._at(place) for place in range(first, first + self.batch)])

    def random(self, step: int, *more: int) -> np.random.Generator:
        """Randomness that belongs to a step (and to a photo or a process of it)."""
        return np.random.default_rng((self.seed, self.stage, step, *more))

    def _at(self, place: int) -> int:
        epoch, within = divmod(place, self.epoch_length)
        return int(self._epoch(epoch)[within])

    @lru_cache(maxsize=2)  # noqa: B019 - a schedule lives as long as its stage
    def _epoch(self, epoch: int) -> NDArray[np.int64]:
        random = np.random.default_rng((self.seed, self.stage, epoch))
        whole = np.floor(self._weights).astype(int)
        extra = random.random(len(self._rows)) < self._weights - whole
        order = random.permutation(np.repeat(self._rows, whole + extra))
        return np.resize(order, self.epoch_length)


class CaptionTable:
    """Token ids of every caption, and how rows for a batch are drawn from them."""

    def __init__(self, recipe: Recipe, corpus: Corpus, max_tokens: int):
        self.ids = corpus.encoded(max_tokens)
        qualities = {source.name: source.quality for source in recipe.data.sources}
        self.quality = [QUALITY[row.quality or qualities[row.source]] for row in corpus.rows]
        self.length = [[LENGTH[length_of(c)] for c in row.captions] for row in corpus.rows]

    def both(self, photo: int) -> list[list[int]]:
        """Rows of every caption of a photo: each not told its length, then told it."""
        return [
            [self.quality[photo], length, *ids]
            for ids, own in zip(self.ids[photo], self.length[photo], strict=True)
            for length in (LENGTH["any"], own)
        ]

    def draw(self, photo: int, random: np.random.Generator, most: int) -> list[list[int]]:
        """Rows `[quality, length, pieces...]` of at most `most` captions of a photo.

        Half of them are told their length, the others "any".
        """
        chosen = random.permutation(len(self.ids[photo]))[:most]
        rows = []
        for caption, told in zip(chosen, random.random(len(chosen)), strict=True):
            length = LENGTH["any"] if told < ANY_LENGTH else self.length[photo][caption]
            rows.append([self.quality[photo], length, *self.ids[photo][caption]])
        return rows


def padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """Rows of ids as one table, int64 [rows, T]."""
    table = torch.full((len(rows), max(map(len, rows))), PAD, dtype=torch.int64)
    for index, row in enumerate(rows):
        table[index, : len(row)] = torch.tensor(row)
    return table


def pack(rows: Sequence[Sequence[int]], image: Sequence[int]) -> Captions:
    """Rows `[quality, length, pieces..., end]` to inputs and shifted targets, padded.

    The logits at the last control token predict the first piece; the control tokens themselves
    are never asked for.
    """
    table = padded(rows)
    targets = table[:, 1:].clone()
    targets[:, : PREFIX - 1] = PAD
    return Captions(table[:, :-1], targets, torch.tensor(image))
