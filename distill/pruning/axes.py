"""What may go from a student: hidden channels of its MLPs, channels of its attentions' heads.

The trunk, the width of the tokens and the vocabulary stay. All heads of an attention keep equally
many channels, and so do all attentions whose keys and values lie in one tensor: then a pruned
student has the graphs of a whole one, with other numbers in them. Which channels these are, each
head decides for itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from nanocap.student import Dimensions, Student
from nanocap.student.dimensions import Widths

ATTENTION, MLP = "attention", "mlp"


@dataclass(frozen=True)
class Site:
    """Channels between two linear layers, by their names in the student."""

    maker: str  # its outputs are the channels
    reader: str  # its inputs are; of keys a query, whose outputs meet them
    heads: int  # among which the channels are divided; 1 in an MLP
    keys: bool = False  # whether the channels are those of keys

    @property
    def masked(self) -> str:
        """The layer at which the channels are masked: keys leave it, others enter it."""
        return self.maker if self.keys else self.reader

    @property
    def tensors(self) -> tuple[tuple[str, int], ...]:
        """The tensors that hold the channels, and their axis in each."""
        made = ((f"{self.maker}.weight", 0), (f"{self.maker}.bias", 0))
        if self.keys:
            return (*made, (f"{self.reader}.weight", 0), (f"{self.reader}.bias", 0))
        return (*made, (f"{self.reader}.weight", 1))


@dataclass(frozen=True)
class Axis:
    """Sites whose heads all keep equally many channels.

    A unit of it is one channel of every head of every site: the best of each, the second, ...
    """

    kind: str  # `ATTENTION` or `MLP`; importance is comparable within a kind
    sites: tuple[Site, ...]
    channels: int  # of a head
    cost: int  # parameters of a unit


def find_axes(dimensions: Dimensions) -> list[Axis]:
    """All that may go from a student, whole or pruned, in the order that `widths_of` expects."""
    widths, heads, axes = dimensions.widths, dimensions.heads, []
    blocks = [f"encoder.blocks.{index}." for index in range(dimensions.encoder_blocks)]
    layers = [f"decoder.layers.{index}." for index in range(dimensions.decoder_layers)]

    def attention(names: Sequence[str], inner: int) -> Axis:
        sites = [site for name in names for site in _attention(name, heads)]
        # a channel of a head: a row of query, key and value, each with its bias, a column of out
        cost = len(names) * heads * (4 * dimensions.width + 3)
        return Axis(ATTENTION, tuple(sites), inner // heads, cost)

    def mlp(name: str, inner: int) -> Axis:
        site = Site(f"{name}mlp.up", f"{name}mlp.down", 1)
        return Axis(MLP, (site,), inner, 2 * dimensions.width + 1)

    own = widths.encoder_attention
    axes += [attention([block], inner) for block, inner in zip(blocks, own, strict=True)]
    axes += [mlp(block, inner) for block, inner in zip(blocks, widths.encoder_mlp, strict=True)]
    axes.append(attention(layers, widths.decoder_attention))
    axes.append(attention([f"{layer}cross_" for layer in layers], widths.cross_attention))
    axes += [mlp(layer, inner) for layer, inner in zip(layers, widths.decoder_mlp, strict=True)]
    return axes


def widths_of(dimensions: Dimensions, counts: Sequence[int]) -> Widths:
    """The widths of a student that keeps so many channels of a head of each axis."""
    blocks, heads = dimensions.encoder_blocks, dimensions.heads
    decoder, cross = counts[2 * blocks : 2 * blocks + 2]
    return Widths(
        encoder_attention=tuple(heads * count for count in counts[:blocks]),
        encoder_mlp=tuple(counts[blocks : 2 * blocks]),
        decoder_attention=heads * decoder,
        cross_attention=heads * cross,
        decoder_mlp=tuple(counts[2 * blocks + 2 :]),
    )


def layer_of(student: Student, name: str) -> nn.Linear:
    """The linear layer of this name."""
    return cast(nn.Linear, student.get_submodule(name))


def by_head(site: Site, channels: Tensor) -> Tensor:
    """One number a channel, [heads * channels], as [heads, channels]."""
    return channels.reshape(site.heads, -1)


Kept = Mapping[str, Tensor]  # bool [heads * channels] by `Site.masked`


def _attention(prefix: str, heads: int) -> tuple[Site, Site]:
    keys = Site(f"{prefix}key", f"{prefix}query", heads, keys=True)
    return keys, Site(f"{prefix}value", f"{prefix}out", heads)
