"""The text tower: a short bidirectional transformer over the student's own pieces."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nanocap.scorer.dimensions import ScorerDimensions
from nanocap.scorer.image import Embedded
from nanocap.scorer.pooling import AttentionPool
from nanocap.student.layers import MASKED, MLP, attend


class TextBlock(nn.Module):
    """Pre-norm self-attention in both directions, then the MLP."""

    def __init__(self, dimensions: ScorerDimensions, dropout: float):
        super().__init__()
        width = dimensions.width
        self.heads = dimensions.heads
        self.norm_attention = nn.LayerNorm(width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = MLP(width, width * dimensions.mlp_ratio)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_RTC: Tensor, bias: Tensor) -> Tensor:
        """Rows [R, T, width]; `bias` is an additive mask [R, 1, 1, T]."""
        h = self.norm_attention(x_RTC)
        mixed = attend(self.query(h), self.key(h), self.value(h), self.heads, bias)
        x = x_RTC + self.dropout(self.out(mixed))
        return x + self.dropout(self.mlp(self.norm_mlp(x)))


class TextTower(nn.Module):
    """Piece ids to one vector a text and one a piece, and to guesses of masked pieces.

    Nie et al., "LightCLIP" (2023): masked language modelling makes the most of a shortened text
    tower; while it guesses, it is told the photo at the input of every block.
    """

    def __init__(self, dimensions: ScorerDimensions, dropout: float = 0.0):
        super().__init__()
        width = dimensions.width
        self.embedding = nn.Embedding(dimensions.student.vocabulary, width)
        self.positions = nn.Parameter(torch.zeros(dimensions.max_pieces, width))
        self.masked = nn.Parameter(torch.zeros(width))  # stands where a piece is hidden
        self.blocks = nn.ModuleList(
            TextBlock(dimensions, dropout) for _ in range(dimensions.layers)
        )
        self.fusion = nn.ModuleList(
            nn.Linear(dimensions.embedding, width) for _ in range(dimensions.layers)
        )
        self.norm = nn.LayerNorm(width)
        self.pool = AttentionPool(width, dimensions.heads, dimensions.embedding)
        self.match = nn.Linear(width, dimensions.matching)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens_RT: Tensor, mask_RT: Tensor) -> Embedded:
        """Texts as vectors; the padding decides nothing.

        Args:
            tokens_RT: int64 [R, T], pieces without control tokens, T at most `max_pieces`.
            mask_RT: [R, T], 1 for a piece and 0 for padding; a row has at least one piece.
        """
        bias = _bias(mask_RT)
        states = self._states(self.embedding(tokens_RT), bias, None)
        tokens = F.normalize(self.match(states).float(), dim=2)
        return Embedded(F.normalize(self.pool(states, bias).float(), dim=1), tokens)

    def guess(
        self, tokens_RT: Tensor, mask_RT: Tensor, hidden_RT: Tensor, photo_RD: Tensor
    ) -> Tensor:
        """Logits [hidden pieces, vocabulary] of what stands where `hidden_RT` is true.

        Args:
            photo_RD: the photo of each row as the image tower embeds it, [R, embedding].
        """
        x = torch.where(hidden_RT.unsqueeze(2), self.masked, self.embedding(tokens_RT))
        states = self._states(x, _bias(mask_RT), photo_RD)
        return F.linear(states[hidden_RT], self.embedding.weight).float()

    def _states(self, x_RTC: Tensor, bias: Tensor, photo_RD: Tensor | None) -> Tensor:
        # chosen by index: a slice would tie the exported graph to the length it was traced with
        places = torch.arange(x_RTC.shape[1], device=x_RTC.device)
        x = self.dropout(x_RTC + self.positions.index_select(0, places))
        for block, fusion in zip(self.blocks, self.fusion, strict=True):
            if photo_RD is not None:
                x = x + fusion(photo_RD).unsqueeze(1)
            x = block(x, bias)
        return self.norm(x)


def _bias(mask_RT: Tensor) -> Tensor:
    return ((1 - mask_RT.float()) * MASKED)[:, None, None, :]
