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
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nanocap.student.controls import PAD
from nanocap.student.dimensions import Dimensions
from nanocap.student.evidence import NO_PHOTO, Seen, Told, has_said, with_copies
from nanocap.student.layers import MASKED, MLP, attend

LEAST_SURE = -9.0  # a log probability, so that certainty goes in as a number of about one


class Memory(NamedTuple):
    """What the decoder keeps of photos.

    Attributes:
        keys, values: of cross-attention, each [layers, B, memory tokens, cross width].
        evidence: int64 [B, E], pieces of the words that can be copied.
        copy_keys: [B, E, width], what copying them attends to.
    """

    keys: Tensor
    values: Tensor
    evidence: Tensor
    copy_keys: Tensor

    def some(self, photos: Tensor) -> Memory:
        """Of some of the photos, int64 [B']."""
        keys, values = self.keys[:, photos], self.values[:, photos]
        return Memory(keys, values, self.evidence[photos], self.copy_keys[photos])


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
        # the visual tokens of a text that has no photo (Fei et al. 2023, MultiCapCLIP)
        self.nothing = nn.Parameter(torch.zeros(dimensions.width)) if dimensions.evidence else None
        self.copying = Copying(dimensions) if dimensions.evidence else None

    def cross(self, seen: Seen) -> Memory:
        """What the decoder attends to: once a photo."""
        layers = cast(Sequence[DecoderLayer], self.layers)
        memory_BNC = seen.tokens
        copy_keys = memory_BNC[:, :0]
        if self.copying is not None:
            told = self.copying(self.embedding(seen.evidence), seen.certainty)
            memory_BNC = torch.cat([memory_BNC, told.to(memory_BNC.dtype)], 1)
            copy_keys = self.copying.key(told)
        keys = torch.stack([layer.cross_key(memory_BNC) for layer in layers])
        values = torch.stack([layer.cross_value(memory_BNC) for layer in layers])
        return Memory(keys, values, seen.evidence, copy_keys)

    def and_told(self, seen: Seen, told: Told) -> Seen:
        """Photos, and behind them captions that are told what to see."""
        assert self.nothing is not None
        tokens = seen.tokens[told.photo.clamp(min=0)]
        nothing = self.nothing.to(tokens.dtype).expand_as(tokens)
        without = (told.photo == NO_PHOTO)[:, None, None]
        return Seen(
            torch.cat([seen.tokens, torch.where(without, nothing, tokens)]),
            torch.cat([seen.evidence, told.evidence]),
            torch.cat([seen.certainty, told.certainty]),
            seen.classes,
            seen.words,
        )

    def forward(self, tokens_BKT: Tensor, memory: Memory) -> Tensor:
        """Logits after every position: [images, captions, T, vocabulary]; see `states`."""
        images, captions, length = tokens_BKT.shape
        states = self.states(tokens_BKT, memory.keys, memory.values)
        rows = self.norm(states).reshape(images, captions * length, -1)
        logits, copies = self.logits(rows), self.copies(rows, memory.copy_keys)
        if self.copying is not None:
            places = torch.arange(length, device=tokens_BKT.device)
            past = torch.where(places <= places.unsqueeze(1), tokens_BKT.unsqueeze(2), PAD)
            said = has_said(past.reshape(images, -1, length), memory.evidence)
            logits = with_copies(logits, copies, memory.evidence, said)
        return logits.reshape(images, captions, length, -1)

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
        memory: Memory,
        keys: Tensor,
        values: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One position for every beam, with the cache passed in and out.

        Args:
            tokens_BK: int64 [images, beams], the token at `position`.
            position: int64 [1], the same for all.
            memory: from `cross`.
            keys, values: cache [layers, images * beams, max_tokens, cache width].
        Returns:
            logits [images, beams, vocabulary] of generating, those [images, beams, E] of copying,
            and the cache with this position written.
        """
        images, beams = tokens_BK.shape
        places = torch.arange(keys.shape[2], device=keys.device)
        here = (places == position).unsqueeze(1)  # [max_tokens, 1]
        bias = (places > position).float() * MASKED
        x = self.embedding(tokens_BK.reshape(-1, 1)) + self.positions[position]
        new_keys, new_values = [], []
        for index, layer in enumerate(self.layers):
            past = (keys[index], values[index], here)
            x, key, value = layer(x, memory.keys[index], memory.values[index], bias, past)
            new_keys.append(key)
            new_values.append(value)
        x = self.norm(x).reshape(images, beams, -1)
        logits, copies = self.logits(x), self.copies(x, memory.copy_keys)
        return logits, copies, torch.stack(new_keys), torch.stack(new_values)

    def logits(self, normed: Tensor) -> Tensor:
        """Normed states [..., width] to logits [..., vocabulary] of generating."""
        return F.linear(normed, self.embedding.weight)

    def copies(self, normed_BNC: Tensor, copy_keys: Tensor) -> Tensor:
        """Normed states of each photo to logits [B, N, E] of copying each word of its evidence."""
        if self.copying is None:
            return normed_BNC[:, :, :0]
        return self.copying.query(normed_BNC) @ copy_keys.transpose(1, 2)


class Copying(nn.Module):
    """Words of evidence as memory tokens, and what copying them attends to."""

    def __init__(self, dimensions: Dimensions):
        super().__init__()
        width = dimensions.width
        self.norm = nn.LayerNorm(width)
        self.places = nn.Parameter(torch.zeros(dimensions.evidence, width))
        self.certainty = nn.Linear(2, width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, embedded_BEC: Tensor, certainty_BE: Tensor) -> Tensor:
        """Memory tokens [B, E, width] of words by their embeddings and log probabilities."""
        sure = torch.stack([certainty_BE.exp(), certainty_BE / LEAST_SURE], 2)
        return self.norm(embedded_BEC) + self.places + self.certainty(sure)
