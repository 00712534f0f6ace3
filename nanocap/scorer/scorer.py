"""The scorer: both towers, and the one file that holds them."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from nanocap.errors import NanocapError
from nanocap.scorer.dimensions import ScorerDimensions
from nanocap.scorer.image import ImageTower
from nanocap.scorer.text import TextTower
from nanocap.student import Student
from nanocap.student.file import load_module, save_module
from nanocap.student.student import INITIAL_DEVIATION

FIRST_SCALE = 1 / 0.07  # of the cosines before the softmax; CLIP starts there
LARGEST_SCALE = 100.0

PHOTOS_AT_ONCE = 8


class Scorer(nn.Module):
    """An image-text scorer after LightCLIP (Nie et al. 2023): the cosine of two embeddings.

    Args:
        dimensions: all that is needed to rebuild it around its weights.
        dropout: in the text tower, while training.
    """

    def __init__(self, dimensions: ScorerDimensions, dropout: float = 0.0):
        super().__init__()
        self.dimensions = dimensions
        self.image = ImageTower(dimensions)
        self.text = TextTower(dimensions, dropout)
        # logarithms: of whole photos with whole texts, of visual tokens with pieces
        self.log_scales = nn.Parameter(torch.full((2,), math.log(FIRST_SCALE)))
        self._initialize()

    def scales(self) -> tuple[Tensor, Tensor]:
        """What cosines are multiplied by before the softmax: of wholes, and of tokens."""
        whole, tokens = self.log_scales.exp().clamp(max=LARGEST_SCALE).unbind()
        return whole, tokens

    def start_from(self, student: Student) -> None:
        """Take over a student's encoder.

        Raises:
            NanocapError: the student is of other dimensions.
        """
        if student.dimensions != self.dimensions.student:
            raise NanocapError("the student's dimensions are not those that the scorer names")
        self.image.encoder.load_state_dict(student.encoder.state_dict())

    def save(self, path: Path, metadata: dict[str, str] | None = None) -> None:
        """Write weights and dimensions as one safetensors file, whole or not at all."""
        save_module(path, self, self.dimensions.to_dict(), metadata)

    @classmethod
    def load(cls, path: Path) -> tuple[Scorer, dict[str, str]]:
        """Read what `save` wrote: the scorer in eval mode, and the file's metadata.

        Raises:
            NanocapError: the file is missing, damaged, or no scorer's checkpoint.
        """
        return load_module(path, lambda d: cls(ScorerDimensions.from_dict(d)), "scorer", "scorer")

    def _initialize(self) -> None:
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=INITIAL_DEVIATION)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
            if isinstance(module, nn.Linear) and name.endswith(("pool.project", "match")):
                # their results are normalized: at 0.02 they would start in the noise of bfloat16
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
        for parameter in (
            self.image.encoder.positions,
            self.image.pool.seed,
            self.text.positions,
            self.text.masked,
            self.text.pool.seed,
        ):
            nn.init.normal_(parameter, std=INITIAL_DEVIATION)


def late_interaction(
    visual_BNC: Tensor, pieces_RTC: Tensor, mask_RT: Tensor
) -> tuple[Tensor, Tensor]:
    """Similarity of every photo with every text by their tokens, seen from either side.

    The relaxed bipartite matching of LightCLIP, scored as in FILIP (Yao et al. 2021): each token
    takes its best partner on the other side, which several may share; then their mean.

    Args:
        visual_BNC, pieces_RTC: vectors of length 1.
        mask_RT: 1 for a piece, 0 for padding.
    Returns:
        by the visual tokens [B, R], and by the pieces [B, R]; both from -1 to 1.
    """
    absent_RT = mask_RT == 0
    # a few photos at a time: the similarities of all would pass through memory many times over
    some = torch.split(visual_BNC, PHOTOS_AT_ONCE)
    parts = [_best_partners(visual, pieces_RTC, absent_RT) for visual in some]
    by_visual, by_piece = (torch.cat(sides) for sides in zip(*parts, strict=True))
    return by_visual, by_piece


def _best_partners(
    visual_BNC: Tensor, pieces_RTC: Tensor, absent_RT: Tensor
) -> tuple[Tensor, Tensor]:
    similarity = torch.einsum("bnc,rtc->brnt", visual_BNC, pieces_RTC)
    # `max` rather than `amax`: it remembers which it took, and its gradient is one store
    by_visual = similarity.masked_fill(absent_RT[None, :, None, :], -1.0).max(3).values.mean(2)
    present = (~absent_RT).to(similarity.dtype)
    by_piece = (similarity.max(2).values * present).sum(2) / present.sum(1)
    return by_visual, by_piece
