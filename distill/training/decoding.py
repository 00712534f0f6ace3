"""A student's decoder while it speaks: position by position, with caches that grow."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from nanocap.distill.data.tokenizer import END, LENGTH, QUALITY, SPECIALS
from nanocap.student import Student

LONGEST = 28  # positions that a caption drawn in training may take; few people write more

PROMPT = (QUALITY["high"], LENGTH["any"])  # what captions are asked for with
NEVER = [piece for piece in range(len(SPECIALS)) if piece != END]


class Decoding:
    """Some captions of each photo, side by side, and what the decoder remembers of them.

    Args:
        visual_BNC: visual tokens of B photos.
        captions: of each photo.
    """

    def __init__(self, student: Student, visual_BNC: Tensor, captions: int):
        self._decoder, self._captions = student.decoder, captions
        self._cross = student.decoder.cross(visual_BNC)
        layers, photos = self._cross[0].shape[:2]
        width = student.dimensions.widths.decoder_attention
        self._keys = self._cross[0].new_zeros(layers, photos * captions, 0, width)
        self._values = self._keys

    def step(self, tokens_BK: Tensor, position: int) -> Tensor:
        """Logits [B, K, V] of the piece after this one; pieces that are no text are out of reach.

        Args:
            position: one more than in the step before, from 0 on.
        """
        here = torch.tensor([position], device=tokens_BK.device)
        # a position attends to what is there: the cache is no longer than that
        keys, values = (F.pad(cache, (0, 0, 0, 1)) for cache in (self._keys, self._values))
        logits, self._keys, self._values = self._decoder.step(
            tokens_BK, here, *self._cross, keys, values
        )
        return text_scores(logits)

    def reorder(self, rows: Tensor) -> None:
        """Let each caption go on from the cache of another row (of B * K)."""
        self._keys, self._values = self._keys[:, rows], self._values[:, rows]

    def keep(self, photos: Tensor) -> None:
        """Go on with these photos only."""
        captions = torch.arange(self._captions, device=photos.device)
        self.reorder((photos.unsqueeze(1) * self._captions + captions).flatten())
        keys, values = self._cross
        self._cross = keys[:, photos], values[:, photos]


def text_scores(logits: Tensor) -> Tensor:
    """Logits [..., V] in fp32, with the pieces that are no text out of reach."""
    scores = logits.float()
    scores[..., NEVER] = float("-inf")
    return scores
