"""The decoder: a causal transformer that looks at the visual tokens through cross-attention.

Visual tokens are keys and values only (ADEM-VL, EE-MLLM); they never stand in the text sequence,
and their projections are computed once a photo, by `cross`. Several captions of one photo (beams,
or its references in training) share them: captions are folded into the query axis, which
cross-attention, having no causal mask, does not mind.

Keys and values have the student's width, or what pruning left of it: the cache's that of
`Widths.decoder_attention`, cross-attention's that of `Widths.cross_attention`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nanocap.student.dimensions import Dimensions
from nanocap.student.layers import MASKED, MLP, attend


class DecoderLayer(nn.Module):
    """Pre-norm causal self-attention, cross-attention, MLP."""

    def __init__(self, dimensions: Dimensions, index: int, dropout: float):
        super().__init__()
        width, widths = dimensions.width, dimensions.widths
        inner, cross = widths.decoder_attention, widths.cross_attention
        self.heads = dimensions.heads
        self.norm_self = nn.LayerNorm(width)
        self.query, self.key = nn.Linear(width, inner), nn.Linear(width, inner)
        self.value, self.out = nn.Linear(width, inner), nn.Linear(inner, width)
        self.norm_cross = nn.LayerNorm(width)
        self.cross_query, self.cross_out = nn.Linear(width, cross), nn.Linear(cross, width)
        self.cross_key, self.cross_value = nn.Linear(width, cross), nn.Linear(width, cross)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = MLP(width, widths.decoder_mlp[index])
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x_RTC: Tensor,
        cross_key_BNC: Tensor,
        cross_value_BNC: Tensor,
        bias: Tensor,
        past: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One layer over rows R = images * captions.

        Args:
            x_RTC: [rows, T, width].
            cross_key_BNC, cross_value_BNC: [images, visual tokens, cross width].
            bias: additive mask, broadcast over [rows, heads, T, keys].
            past: cache of keys and values [rows, max_tokens, cache width], and where to write
                (bool [max_tokens, 1]); then T is 1.
        Returns:
            the rows, and the keys and values that self-attention looked at.
        """
        h = self.norm_self(x_RTC)
        keys, values = self.key(h), self.value(h)
        if past is not None:
            # `where` rather than an indexed write: the one form that all converters take
            past_keys, past_values, here = past
            keys = torch.where(here, keys, past_keys)
            values = torch.where(here, values, past_values)
        x = x_RTC + self.dropout(self.out(attend(self.query(h), keys, values, self.heads, bias)))
        rows, length, _ = x.shape
        images, _, cross = cross_key_BNC.shape
        h = self.cross_query(self.norm_cross(x)).reshape(images, -1, cross)
        seen = attend(h, cross_key_BNC, cross_value_BNC, self.heads, None)
        x = x + self.dropout(self.cross_out(seen.reshape(rows, length, cross)))
        return x + self.dropout(self.mlp(self.norm_mlp(x))), keys, values


class Decoder(nn.Module):
    """Token ids and visual tokens to logits over the vocabulary; embeddings are tied."""

    def __init__(self, dimensions: Dimensions, dropout: float = 0.0):
        super().__init__()
        self.dimensions = dimensions
        self.embedding = nn.Embedding(dimensions.vocabulary, dimensions.width)
        self.positions = nn.Parameter(torch.zeros(dimensions.max_tokens, dimensions.width))
        self.layers = nn.ModuleList(
            DecoderLayer(dimensions, index, dropout) for index in range(dimensions.decoder_layers)
        )
        self.norm = nn.LayerNorm(dimensions.width)
        self.dropout = nn.Dropout(dropout)

    def cross(self, visual_BNC: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of cross-attention, each [layers, B, N, cross width]: once a photo."""
        layers = cast(Sequence[DecoderLayer], self.layers)
        keys = torch.stack([layer.cross_key(visual_BNC) for layer in layers])
        values = torch.stack([layer.cross_value(visual_BNC) for layer in layers])
        return keys, values

    def forward(self, tokens_BKT: Tensor, cross_keys: Tensor, cross_values: Tensor) -> Tensor:
        """Logits after every position: [images, captions, T, vocabulary]; see `states`."""
        return self.logits(self.states(tokens_BKT, cross_keys, cross_values))

    def states(self, tokens_BKT: Tensor, cross_keys: Tensor, cross_values: Tensor) -> Tensor:
        """The last layer's state at every position, for training: `logits` of those that count.

        Args:
            tokens_BKT: int64 [images, captions, T], control tokens first.
            cross_keys, cross_values: from `cross`.
        Returns:
            [images, captions, T, width].
        """
        images, captions, length = tokens_BKT.shape
        x = self.embedding(tokens_BKT.reshape(-1, length)) + self.positions[:length]
        x = self.dropout(x)
        ahead = torch.ones(length, length, device=x.device).triu(1)
        for index, layer in enumerate(self.layers):
            x, _, _ = layer(x, cross_keys[index], cross_values[index], ahead * MASKED)
        return x.reshape(images, captions, length, -1)

    def step(
        self,
        tokens_BK: Tensor,
        position: Tensor,
        cross_keys: Tensor,
        cross_values: Tensor,
        keys: Tensor,
        values: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One position for every beam, with the cache passed in and out.

        Args:
            tokens_BK: int64 [images, beams], the token at `position`.
            position: int64 [1], the same for all.
            cross_keys, cross_values: [layers, images, visual tokens, cross width].
            keys, values: cache [layers, images * beams, max_tokens, cache width].
        Returns:
            logits [images, beams, vocabulary] and the cache with this position written.
        """
        images, beams = tokens_BK.shape
        places = torch.arange(keys.shape[2], device=keys.device)
        here = (places == position).unsqueeze(1)  # [max_tokens, 1]
        bias = (places > position).float() * MASKED
        x = self.embedding(tokens_BK.reshape(-1, 1)) + self.positions[position]
        new_keys, new_values = [], []
        for index, layer in enumerate(self.layers):
            past = (keys[index], values[index], here)
            x, key, value = layer(x, cross_keys[index], cross_values[index], bias, past)
            new_keys.append(key)
            new_values.append(value)
        logits = self.logits(x).reshape(images, beams, -1)
        return logits, torch.stack(new_keys), torch.stack(new_values)

    def logits(self, x: Tensor) -> Tensor:
        """Hidden states [..., width] to logits [..., vocabulary]."""
        return F.linear(self.norm(x), self.embedding.weight)
