"""The two graphs of a bundle as modules: what an exporter traces.

Shapes: B images, K beams, L decoder layers, N visual tokens, T positions, D width, V ids. Of a
pruned student's keys and values D is what is left of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from nanocap.student import Dimensions, Student
from nanocap.student.decoder import Decoder, DecoderLayer
from nanocap.student.layers import MASKED
from nanocap.student.trunk import PIXEL_MEAN, PIXEL_STD

# By argument; of a variable number of arguments a tuple, one entry each.
Shapes = dict[str, Any]


class Graph(nn.Module):
    """A module to be exported: the names of what goes in and what comes out, in their order."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def shapes(self, axes: Mapping[str, dict[int, str]]) -> Shapes:
        """For tracing: the axes whose length is free, by argument of `forward`."""
        # DYNAMIC rather than named: rows = batch * beams is no dimension that torch.export can name
        return {name: dict.fromkeys(axes.get(name, ()), Dim.DYNAMIC) for name in self.inputs}


class EncoderGraph(Graph):
    """Pixels uint8 [B, S, S, 3] to `cross_keys` and `cross_values` [L, B, N, D]."""

    inputs = ("pixels",)
    outputs = ("cross_keys", "cross_values")

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.encoder, self.decoder = student.encoder, student.decoder

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        # Normalized inside the graph: a binding that forgot it, or did it twice, captions noise;
        # transposed while it is still bytes: a quarter of the memory traffic
        x_BCHW = (pixels.permute(0, 3, 1, 2).float() - PIXEL_MEAN) / PIXEL_STD
        return self.decoder.cross(self.encoder(x_BCHW))


class DecoderGraph(Graph):
    """`Decoder.step` with the same inputs and outputs, arranged for few graph nodes.

    A step works on a handful of rows, so that its time is nodes and memory traffic rather than
    arithmetic. Three things differ from `Decoder.step`, and parity with it is checked at every
    export: the rows are a matrix [B * K, D] (a linear layer is one Gemm with its bias), query, key
    and value are one product with the attention's scale folded in, and caches are split into
    layers, not indexed.
    """

    inputs = ("tokens", "position", "cross_keys", "cross_values", "keys", "values")
    outputs = ("logits", "new_keys", "new_values")

    def __init__(self, student: Student) -> None:
        super().__init__()
        decoder = student.decoder
        self.embedding, self.positions = decoder.embedding, decoder.positions
        self.norm = decoder.norm
        self.layers = nn.ModuleList(_StepLayer(layer, decoder) for layer in decoder.layers)

    def forward(
        self,
        tokens: Tensor,
        position: Tensor,
        cross_keys: Tensor,
        cross_values: Tensor,
        keys: Tensor,
        values: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Decoder.step`."""
        images, beams = tokens.shape
        places = torch.arange(keys.shape[2])
        here = (places == position).unsqueeze(1)  # [T, 1]
        bias = (places > position).float() * MASKED
        x_RD = self.embedding(tokens.reshape(-1)) + self.positions.index_select(0, position)
        # [1, ...] slices: one Split a cache instead of a Gather and a Squeeze a layer
        caches = zip(
            *(torch.split(c, 1) for c in (cross_keys, cross_values, keys, values)), strict=True
        )
        new_keys, new_values = [], []
        for layer, (cross_key, cross_value, key, value) in zip(self.layers, caches, strict=True):
            x_RD, key, value = layer(x_RD, images, cross_key, cross_value, key, value, here, bias)
            new_keys.append(key)
            new_values.append(value)
        logits = nn.functional.linear(self.norm(x_RD), self.embedding.weight)
        return logits.reshape(images, beams, -1), torch.cat(new_keys), torch.cat(new_values)


class _StepLayer(nn.Module):
    """One decoder layer at one position, over rows R = B * K."""

    def __init__(self, layer: nn.Module, decoder: Decoder) -> None:
        super().__init__()
        assert isinstance(layer, DecoderLayer)
        self.heads, widths = decoder.dimensions.heads, decoder.dimensions.widths
        self.width, self.cross_width = widths.decoder_attention, widths.cross_attention
        scale, cross_scale = (
            (width // self.heads) ** -0.5 for width in (self.width, self.cross_width)
        )
        self.norm_self, self.norm_cross, self.norm_mlp = (
            layer.norm_self,
            layer.norm_cross,
            layer.norm_mlp,
        )
        self.project = _stacked([(layer.query, scale), (layer.key, 1.0), (layer.value, 1.0)])
        self.cross_query = _stacked([(layer.cross_query, cross_scale)])
        self.out, self.cross_out, self.mlp = layer.out, layer.cross_out, layer.mlp

    def forward(
        self,
        x_RD: Tensor,
        images: int,
        cross_key: Tensor,
        cross_value: Tensor,
        past_key: Tensor,
        past_value: Tensor,
        here: Tensor,
        bias: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Caches come and go as [1, R, T, D], cross-attention's as [1, B, N, D]."""
        projected = self.project(self.norm_self(x_RD)).reshape(-1, 3, self.width)
        query, key, value = projected.split(1, dim=1)  # [R, 1, D]
        key, value = torch.where(here, key, past_key), torch.where(here, value, past_value)
        x_RD = x_RD + self.out(self._attend(query, key, value, bias))
        query = self.cross_query(self.norm_cross(x_RD)).reshape(images, -1, self.cross_width)
        x_RD = x_RD + self.cross_out(self._attend(query, cross_key, cross_value, None))
        return x_RD + self.mlp(self.norm_mlp(x_RD)), key, value

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        """Scaled queries [G, Q, D] over keys [1, G, M, D], as rows [G * Q, D].

        With a bias there is one query a group (self-attention): moving its heads is a mere reshape.
        """
        width = self.cross_width if bias is None else self.width
        channels = width // self.heads
        split = (-1, key.shape[2], self.heads, channels)
        keys_GHCM = key.reshape(split).permute(0, 2, 3, 1)
        values_GHMC = value.reshape(split).transpose(1, 2)
        if bias is not None:
            weights = torch.softmax(
                query.reshape(-1, self.heads, 1, channels) @ keys_GHCM + bias, 3
            )
            return (weights @ values_GHMC).reshape(-1, width)
        heads = query.reshape(query.shape[0], -1, self.heads, channels).transpose(1, 2)
        weights = torch.softmax(heads @ keys_GHCM, 3)
        return (weights @ values_GHMC).transpose(1, 2).reshape(-1, width)


def _stacked(parts: list[tuple[nn.Linear, float]]) -> nn.Linear:
    """Linear layers with one input as one layer, each scaled."""
    weight = torch.cat([linear.weight * scale for linear, scale in parts]).detach()
    stacked = nn.Linear(weight.shape[1], weight.shape[0])
    stacked.weight = nn.Parameter(weight)
    stacked.bias = nn.Parameter(
        torch.cat([linear.bias * scale for linear, scale in parts]).detach()
    )
    return stacked


@dataclass(frozen=True)
class Sizes:
    """Shapes that both graphs share."""

    layers: int
    visual_tokens: int
    max_tokens: int
    cache_width: int
    cross_width: int
    image_size: int

    @classmethod
    def of(cls, dimensions: Dimensions) -> Sizes:
        """Those of a student."""
        return cls(
            dimensions.decoder_layers,
            dimensions.visual_tokens,
            dimensions.max_tokens,
            dimensions.widths.decoder_attention,
            dimensions.widths.cross_attention,
            dimensions.image_size,
        )

    def encoder_example(self, images: int) -> tuple[Tensor, ...]:
        """Inputs of `EncoderGraph`, for tracing."""
        return (torch.zeros(images, self.image_size, self.image_size, 3, dtype=torch.uint8),)

    def decoder_example(self, images: int, beams: int) -> tuple[Tensor, ...]:
        """Inputs of `DecoderGraph`, for tracing."""
        # each a tensor of its own: the exporter takes one tensor given twice for one input
        seen = (self.layers, images, self.visual_tokens, self.cross_width)
        past = (self.layers, images * beams, self.max_tokens, self.cache_width)
        cross, cache = ([torch.zeros(shape) for _ in range(2)] for shape in (seen, past))
        tokens = torch.zeros(images, beams, dtype=torch.int64)
        return (tokens, torch.zeros(1, dtype=torch.int64), *cross, *cache)


# Names of the axes whose length is free, by input or output and axis.
AXES = {
    "pixels": {0: "batch"},
    "tokens": {0: "batch", 1: "beams"},
    "cross_keys": {1: "batch"},
    "cross_values": {1: "batch"},
    "keys": {1: "rows"},
    "values": {1: "rows"},
    "logits": {0: "batch", 1: "beams"},
    "new_keys": {1: "rows"},
    "new_values": {1: "rows"},
}
# The decoder takes any number of visual tokens: encoders of several budgets share it.
DECODER_AXES = {
    **AXES,
    "cross_keys": {1: "batch", 2: "visual_tokens"},
    "cross_values": {1: "batch", 2: "visual_tokens"},
}
