"""The image tower: a student's encoder, and a small head over its visual tokens."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from nanocap.scorer.dimensions import ScorerDimensions
from nanocap.scorer.pooling import AttentionPool
from nanocap.student.encoder import Encoder


@dataclass(frozen=True)
class Embedded:
    """Photos or texts as a tower embeds them; every vector is of length 1."""

    whole: Tensor  # [B, embedding]
    tokens: Tensor  # [B, N, matching]: visual tokens, or pieces


class ImageTower(nn.Module):
    """Pixels, or the trunk's middle maps, to one vector a photo and one a visual token."""

    def __init__(self, dimensions: ScorerDimensions):
        super().__init__()
        student = dimensions.student
        self.encoder = Encoder(student)
        self.pool = AttentionPool(student.width, student.heads, dimensions.embedding)
        self.match = nn.Linear(student.width, dimensions.matching)

    def forward(self, pixels_BCHW: Tensor) -> Embedded:
        """Normalized pixels [B, 3, S, S]."""
        return self.from_map(self.encoder.trunk.lower(pixels_BCHW))

    def from_map(self, middle_BCHW: Tensor) -> Embedded:
        """The trunk's middle map (see `Trunk.lower`)."""
        visual = self.encoder.from_map(middle_BCHW).tokens
        tokens = F.normalize(self.match(visual).float(), dim=2)
        return Embedded(F.normalize(self.pool(visual).float(), dim=1), tokens)
