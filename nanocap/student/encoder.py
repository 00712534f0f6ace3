"""The encoder: a photo to a few visual tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nanocap.student.dimensions import Dimensions
from nanocap.student.evidence import TOP_CHANNELS, ConceptHead, Seen
from nanocap.student.layers import MLP, attention_weights, split_heads
from nanocap.student.merging import apply_assignment
from nanocap.student.reducers import make_reducer
from nanocap.student.trunks import make_trunk


class EncoderBlock(nn.Module):
    """Pre-norm self-attention, then the reducer, then the MLP on what remains.

    Attention is proportional (ToMe): the log of a token's size is added to its logit, so that a
    token that stands for two counts for two.
    """

    def __init__(self, dimensions: Dimensions, keep: int, index: int = 0):
        super().__init__()
        width, widths = dimensions.width, dimensions.widths
        inner = widths.encoder_attention[index]
        self.heads, self.keep = dimensions.heads, keep
        self.norm_attention = nn.LayerNorm(width)
        self.query = nn.Linear(width, inner)
        self.key = nn.Linear(width, inner)
        self.value = nn.Linear(width, inner)
        self.out = nn.Linear(inner, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = MLP(width, widths.encoder_mlp[index])
        self.reducer = make_reducer(dimensions.reducer)

    def forward(self, x_BNC: Tensor, size_BN1: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Tokens [B, N, C] and their sizes [B, N, 1] to [B, keep, C] and [B, keep, 1].

        No sizes mean that each token stands for itself alone.
        """
        h = self.norm_attention(x_BNC)
        keys = self.key(h)
        bias = None if size_BN1 is None else size_BN1.log().transpose(1, 2).unsqueeze(1)
        weights = attention_weights(
            split_heads(self.query(h), self.heads), split_heads(keys, self.heads), bias
        )
        mixed = (weights @ split_heads(self.value(h), self.heads)).transpose(1, 2)
        x = x_BNC + self.out(mixed.flatten(2))
        size = size_BN1
        if self.keep < x.shape[1]:
            # which tokens go together is a decision, not a quantity: no gradient flows through it
            received = weights.detach().mean(dim=(1, 2), dtype=torch.float32)
            assignment = self.reducer.assign(keys.detach().float(), received, self.keep)
            ones = torch.ones_like(x[:, :, :1], dtype=torch.float32)
            x, size = apply_assignment(assignment, x, ones if size is None else size)
        return x + self.mlp(self.norm_mlp(x)), size


class Encoder(nn.Module):
    """Trunk, projection of its two last depths onto one 14x14 grid, transformer blocks."""

    def __init__(self, dimensions: Dimensions):
        super().__init__()
        self.dimensions = dimensions
        self.trunk = make_trunk(dimensions.trunk)
        self.from_middle = nn.Linear(self.trunk.middle_channels, dimensions.width)
        self.from_top = nn.Linear(self.trunk.top_channels, dimensions.width)
        self.positions = nn.Parameter(torch.zeros(1, dimensions.grid**2, dimensions.width))
        self.blocks = nn.ModuleList(
            EncoderBlock(dimensions, keep, index) for index, keep in enumerate(dimensions.keep)
        )
        self.norm = nn.LayerNorm(dimensions.width)
        self.concepts = ConceptHead(dimensions) if dimensions.evidence else None

    def forward(self, pixels_BCHW: Tensor) -> Seen:
        """Normalized pixels [B, 3, S, S] to visual tokens [B, N, width] and evidence."""
        return self.from_map(self.trunk.lower(pixels_BCHW))

    def from_map(self, lower_BCHW: Tensor) -> Seen:
        """What the trunk's `lower` gives to visual tokens and evidence."""
        top = self.trunk.upper(lower_BCHW)
        middle_BCHW = self.trunk.middle(lower_BCHW)
        top_BNC = self.from_top(top.flatten(2).transpose(1, 2))
        x = self.from_middle(middle_BCHW.flatten(2).transpose(1, 2))
        x = x + self._onto_grid(top_BNC) + self.positions
        size = None
        for block in self.blocks:
            x, size = block(x, size)
        tokens = self.norm(x)
        if self.concepts is None:
            return Seen.plain(tokens)
        return self.concepts(top[:, :TOP_CHANNELS].mean((2, 3)), tokens)

    def _onto_grid(self, top_BNC: Tensor) -> Tensor:
        """Repeat each token of the coarse map over the four places of the fine one below it."""
        coarse = self.dimensions.grid // 2
        map_BCHW = top_BNC.transpose(1, 2).reshape(-1, self.dimensions.width, coarse, coarse)
        return F.interpolate(map_BCHW, scale_factor=2.0, mode="nearest").flatten(2).transpose(1, 2)
