"""The decoder at one position, for some beams of one photo."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from nanocap.convert.executorch.encoder import mlp
from nanocap.convert.executorch.norms import Norm, centred, reads, writes
from nanocap.convert.executorch.tables import FloatTable, Table
from nanocap.student import Student
from nanocap.student.decoder import Decoder, DecoderLayer
from nanocap.student.layers import MASKED


class DecodeOne(nn.Module):
    """Logits of R beams, [R, V], and the caches with this position written.

    What depends on the position alone is a row of one table: its embedding, where the cache is
    kept, where it is written and what may be looked at. Caches come as one tensor a layer, keys
    [R, D, T] and values [R, H * T, C], so that a head is a mere reshape of either.
    """

    def __init__(self, student: Student, table: Table) -> None:
        super().__init__()
        decoder, dimensions = student.decoder, student.dimensions
        self.width, self.heads, self.length = (
            dimensions.width,
            dimensions.heads,
            dimensions.max_tokens,
        )
        self.embedding = table(centred(decoder.embedding.weight))
        self.places = FloatTable(_places(centred(decoder.positions)))
        self.layers = nn.ModuleList(_Layer(cast(DecoderLayer, x), decoder) for x in decoder.layers)
        self.norm = Norm(decoder.norm)
        self.logits, self.asks = _logits(decoder), None
        if decoder.copying is not None:
            self.asks = reads(decoder.norm, decoder.copying.query)

    def forward(
        self,
        tokens: Tensor,
        position: Tensor,
        cross_keys: Tensor,
        cross_values: Tensor,
        copy_keys: Tensor | None,
        *caches: Tensor,
    ) -> tuple[Tensor, ...]:
        """The next logits.

        Args:
            tokens: int64 [R]; position: int64 [1].
            cross_keys, cross_values, copy_keys: what `EncodeOne` gave.
            caches: of each layer its keys and then its values.
        Returns:
            the logits, then the caches as they came, then logits [1, R, E] of copying, if any.
        """
        row = self.places(position)
        cuts = (0, self.width, *(self.width + i * self.length for i in (1, 2, 3)))
        place, past, here, bias = (row[:, a:b] for a, b in pairwise(cuts))
        x = self.embedding(tokens) + place
        written: list[Tensor] = []
        for index, layer in enumerate(self.layers):
            heads = slice(index * self.heads, (index + 1) * self.heads)
            x, *both = layer(
                x,
                cross_keys[heads],
                cross_values[heads],
                *caches[2 * index : 2 * index + 2],
                past,
                here,
                bias,
            )
            written += both
        x = self.norm(x)
        if self.asks is None or copy_keys is None:
            return self.logits(x), *written
        copies = torch.bmm(self.asks(x).unsqueeze(0), copy_keys.permute(0, 2, 1))
        return self.logits(x), *written, copies


class _Layer(nn.Module):
    """See `DecoderLayer`."""

    def __init__(self, layer: DecoderLayer, decoder: Decoder) -> None:
        super().__init__()
        self.width, self.heads = decoder.dimensions.width, decoder.dimensions.heads
        self.channels = self.width // self.heads
        scale = self.channels**-0.5
        self.norm_self, self.norm_cross = Norm(layer.norm_self), Norm(layer.norm_cross)
        self.norm_mlp = Norm(layer.norm_mlp)
        self.query = reads(layer.norm_self, layer.query, scales=(scale,))
        self.key = reads(layer.norm_self, layer.key)
        self.value = reads(layer.norm_self, layer.value)
        self.cross_query = reads(layer.norm_cross, layer.cross_query, scales=(scale,))
        self.out, self.cross_out = writes(layer.out), writes(layer.cross_out)
        self.mlp = mlp(layer.norm_mlp, layer.mlp)

    def forward(
        self,
        x_RD: Tensor,
        cross_key_HCN: Tensor,
        cross_value_HNC: Tensor,
        past_key: Tensor,
        past_value: Tensor,
        past: Tensor,
        here: Tensor,
        bias: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        channels, length = self.channels, past.shape[1]
        h = self.norm_self(x_RD)
        key, value = self.key(h), self.value(h)
        keys = past_key * past + key.reshape(-1, self.width, 1) * here
        kept = past_value.reshape(-1, length, channels) * past.reshape(length, 1)
        values = kept + value.reshape(-1, 1, channels) * here.reshape(length, 1)
        weights = torch.softmax(
            torch.bmm(self.query(h).reshape(-1, 1, channels), keys.reshape(-1, channels, length))
            + bias,
            2,
        )
        x_RD = x_RD + self.out(torch.bmm(weights, values).reshape(-1, self.width))
        query = self.cross_query(self.norm_cross(x_RD)).reshape(-1, self.heads, channels)
        weights = torch.softmax(torch.bmm(query.permute(1, 0, 2), cross_key_HCN), 2)
        seen = torch.bmm(weights, cross_value_HNC).permute(1, 0, 2)
        # not `reshape`: of what is not contiguous it makes a shape that the delegate refuses
        x_RD = x_RD + self.cross_out(seen.contiguous().view(-1, self.width))
        return x_RD + self.mlp(self.norm_mlp(x_RD)), keys, values.reshape(-1, *past_value.shape[1:])


def _places(positions_TD: Tensor) -> Tensor:
    """[T, D + 3 T]: by position its embedding, what it keeps, writes and may not look at."""
    length = len(positions_TD)
    here = torch.eye(length)
    return torch.cat([positions_TD, 1 - here, here, MASKED * torch.ones_like(here).triu(1)], 1)


def _logits(decoder: Decoder) -> nn.Linear:
    """The tied embedding behind the last norm."""
    tied = nn.Linear(decoder.dimensions.width, decoder.dimensions.vocabulary)
    tied.weight = nn.Parameter(decoder.embedding.weight.detach())
    nn.init.zeros_(tied.bias)
    return reads(decoder.norm, tied)
