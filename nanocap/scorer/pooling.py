"""Attention pooling: many tokens to one vector."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nanocap.student.layers import attend


class AttentionPool(nn.Module):
    """One learned query attends to all tokens.

    Lee et al., "Set Transformer" (2019), section 3.2, with one seed; CLIP pools its photos so.

    Args:
        width: channels of the tokens.
        outputs: channels of the pooled vector.
    """

    def __init__(self, width: int, heads: int, outputs: int):
        super().__init__()
        self.heads = heads
        self.seed = nn.Parameter(torch.zeros(1, 1, width))
        self.key, self.value = nn.Linear(width, width), nn.Linear(width, width)
        self.project = nn.Linear(width, outputs)

    def forward(self, x_BNC: Tensor, bias: Tensor | None = None) -> Tensor:
        """Tokens [B, N, width] to [B, outputs].

        Args:
            bias: additive mask, broadcast over [B, heads, 1, N].
        """
        seed = self.seed.expand(x_BNC.shape[0], -1, -1)
        pooled = attend(seed, self.key(x_BNC), self.value(x_BNC), self.heads, bias)
        return self.project(pooled.squeeze(1))
