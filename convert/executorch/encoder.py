"""The encoder for one photo, as matrices [tokens, channels]."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from nanocap.convert.executorch.merging import Merging
from nanocap.convert.executorch.norms import Norm, centred, reads, writes
from nanocap.convert.executorch.tables import Table
from nanocap.student import Student
from nanocap.student.decoder import DecoderLayer
from nanocap.student.encoder import EncoderBlock
from nanocap.student.layers import MLP
from nanocap.student.merging import apply_assignment
from nanocap.student.reducers import Merge
from nanocap.student.trunk import PIXEL_MEAN, PIXEL_STD


class EncodeOne(nn.Module):
    """Pixels uint8 [1, S, S, 3] to cross-attention's keys [L * H, C, N] and values [L * H, N, C].

    L decoder layers, H heads of C channels, N memory tokens: as the decoder multiplies them. With a
    concept head also `evidence`, `certainty` and `copy_keys`, as `EncoderGraph` gives them.
    """

    pixel_mean: Tensor
    pixel_scale: Tensor
    positions: Tensor

    def __init__(self, student: Student, table: Table) -> None:
        super().__init__()
        encoder, dimensions = student.encoder, student.dimensions
        layers = cast("list[DecoderLayer]", list(student.decoder.layers))
        self.heads = dimensions.heads * len(layers)
        self.grid = dimensions.grid
        self.trunk = encoder.trunk
        # a number in the code would be a tensor outside the delegate
        self.register_buffer("pixel_mean", torch.tensor([PIXEL_MEAN]))
        self.register_buffer("pixel_scale", torch.tensor([1 / PIXEL_STD]))
        self.from_middle, self.from_top = writes(encoder.from_middle), writes(encoder.from_top)
        self.register_buffer("positions", centred(encoder.positions[0]))
        self.blocks = nn.ModuleList(
            _Block(cast(EncoderBlock, block), tokens)
            for block, tokens in zip(encoder.blocks, (self.grid**2, *dimensions.keep), strict=False)
        )
        self.norm = Norm(encoder.norm)
        self.evidence = _Evidence(student, table) if dimensions.evidence else None
        # words of the evidence stand beside the visual tokens, and have no part in their norm
        norm = encoder.norm if self.evidence is None else nn.LayerNorm(dimensions.width)
        self.keys = reads(norm, *(layer.cross_key for layer in layers))
        self.values = reads(norm, *(layer.cross_value for layer in layers))

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        x_BCHW = (pixels.float().permute(0, 3, 1, 2) - self.pixel_mean) * self.pixel_scale
        middle = self.trunk.lower(x_BCHW)
        top = self.trunk.upper(middle)
        x = self._onto_grid(self.from_middle(_tokens(middle)), self.from_top(_tokens(top)))
        x, size = x + self.positions, None
        for block in self.blocks:
            x, size = block(x, size)
        x = self.norm(x)
        told: tuple[Tensor, ...] = ()
        if self.evidence is not None:
            x, *told = self.evidence(top, x)
        split = (x.shape[0], self.heads, -1)
        keys, values = self.keys(x).reshape(split), self.values(x).reshape(split)
        return keys.permute(1, 2, 0), values.permute(1, 0, 2), *told

    def _onto_grid(self, x_NC: Tensor, top_NC: Tensor) -> Tensor:
        """Each token of the coarse map added to the four of the fine one above it."""
        coarse = self.grid // 2
        fine = x_NC.reshape(coarse, 2, coarse, 2, -1)
        return (fine + top_NC.reshape(coarse, 1, coarse, 1, -1)).reshape(x_NC.shape)


class _Evidence(nn.Module):
    """See `ConceptHead` and `Copying`."""

    scale: Tensor
    shift: Tensor

    def __init__(self, student: Student, table: Table) -> None:
        super().__init__()
        head, copying, norm = (
            student.encoder.concepts,
            student.decoder.copying,
            student.encoder.norm,
        )
        assert head is not None
        assert copying is not None
        self.head, self.copying = head, copying
        self.register_buffer("scale", norm.weight.detach())
        self.register_buffer("shift", norm.bias.detach())
        self.words = table(student.decoder.embedding.weight[head.pieces].detach())

    def forward(self, top_BCHW: Tensor, normed_NC: Tensor) -> tuple[Tensor, ...]:
        """Memory tokens [N, C], then `evidence`, `certainty` and `copy_keys` of the photo."""
        head, tokens = self.head, normed_NC * self.scale + self.shift
        pooled = head.down(top_BCHW.mean((2, 3)))
        words = head.words(torch.cat([pooled, tokens.mean(0, keepdim=True)], 1))
        concepts, certainty = head.likeliest(head.classes(pooled), words)
        flat = concepts.flatten()
        told = self.copying(self.words(flat).unsqueeze(0), certainty)
        evidence = head.pieces.index_select(0, flat).unsqueeze(0)
        return torch.cat([tokens, told[0]]), evidence, certainty, self.copying.key(told)


class _Block(nn.Module):
    """See `EncoderBlock`."""

    def __init__(self, block: EncoderBlock, tokens: int) -> None:
        super().__init__()
        self.heads, self.keep, self.reducer = block.heads, block.keep, block.reducer
        self.merging = None
        if isinstance(block.reducer, Merge) and block.keep < tokens:
            self.merging = Merging(tokens, block.keep, block.key.out_features)
        channels = block.query.out_features // block.heads
        parts = (block.query, block.key, block.value)
        self.norm_attention, self.norm_mlp = Norm(block.norm_attention), Norm(block.norm_mlp)
        self.project = reads(block.norm_attention, *parts, scales=(channels**-0.5, 1, 1))
        self.out = writes(block.out)
        self.mlp = mlp(block.norm_mlp, block.mlp)

    def forward(self, x_NC: Tensor, size_N1: Tensor | None) -> tuple[Tensor, Tensor | None]:
        tokens, width = x_NC.shape
        projected = self.project(self.norm_attention(x_NC))
        keys = projected[:, width : 2 * width]
        query, key, value = (
            projected[:, i * width : (i + 1) * width].reshape(tokens, self.heads, -1)
            for i in range(3)
        )
        logits = torch.bmm(query.permute(1, 0, 2), key.permute(1, 2, 0))
        if size_N1 is not None:
            logits = logits + size_N1.log().reshape(1, tokens)
        weights = torch.softmax(logits, 2)
        mixed = torch.bmm(weights, value.permute(1, 0, 2)).permute(1, 0, 2).reshape(tokens, width)
        x = x_NC + self.out(mixed)
        if self.keep < tokens:
            x, size_N1 = self._reduce(keys, weights, x, size_N1)
        return x + self.mlp(self.norm_mlp(x)), size_N1

    def _reduce(
        self, keys: Tensor, weights: Tensor, x_NC: Tensor, size_N1: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if self.merging is not None:
            return self.merging(keys, x_NC, size_N1)
        # the rivals are for comparison: right, and partly outside the delegate
        received = weights.unsqueeze(0).mean(dim=(1, 2))
        assignment = self.reducer.assign(keys.unsqueeze(0), received, self.keep)
        size = torch.ones(x_NC.shape[0], 1) if size_N1 is None else size_N1
        x, size = apply_assignment(assignment, x_NC.unsqueeze(0), size.unsqueeze(0))
        return x.squeeze(0), size.squeeze(0)


def mlp(norm: nn.LayerNorm, block: MLP) -> nn.Sequential:
    """Two linear layers around a GELU, behind `Norm(norm)`, writing to a stream of mean 0."""
    return nn.Sequential(reads(norm, block.up), nn.GELU(), writes(block.down))


def _tokens(map_BCHW: Tensor) -> Tensor:
    """A map of one photo as [tokens, channels]."""
    return map_BCHW.reshape(map_BCHW.shape[1], -1).transpose(0, 1)
