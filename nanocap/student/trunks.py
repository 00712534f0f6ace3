"""Trunks by name, alone or side by side: `lite0`, `lite0+lite2+edgetpu`.

Side by side only the first one learns; the others rest, and add what they see to its last map.
That is for teachers: three trunks retrieve better than each alone, and cost three times as much.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nanocap.errors import NanocapError
from nanocap.student.edgetpu import EdgeTPU
from nanocap.student.trunk import SCALES, Trunk

SEPARATOR = "+"


class Resting(Protocol):
    """A trunk that can stand beside another."""

    top_channels: int

    def whole(self, pixels_BCHW: Tensor) -> Tensor:
        """Normalized pixels [B, 3, S, S] to the last map [B, top_channels, S/32, S/32]."""
        ...

    def load_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Load the weights that it was trained to on ImageNet."""
        ...


BESIDE: dict[str, Callable[[], nn.Module]] = {
    **{name: lambda name=name: Trunk(name) for name in SCALES},  # type: ignore[misc]
    "edgetpu": EdgeTPU,
}


class SideBySide(nn.Module):
    """A trunk that learns and others at rest, their last maps concatenated.

    What `lower` gives holds everything that rests, on one grid, so that it can be cached as a
    single trunk's middle map is: each place of a map at stride 32 lies in four at stride 16, a
    quarter of its channels in each.
    """

    def __init__(self, first: str, others: Sequence[str]):
        super().__init__()
        self.first = Trunk(first)
        self.others = nn.ModuleList(_beside(name) for name in others)
        tops = [int(other.top_channels) for other in self.others]  # type: ignore[arg-type]
        widths = (self.first.middle_channels, *(channels // 4 for channels in tops))
        self.places = [*pairwise(accumulate(widths, initial=0))]  # channels of each in the map
        self.middle_channels = self.first.middle_channels
        self.lower_channels = sum(widths)
        self.top_channels = self.first.top_channels + sum(tops)

    def lower(self, pixels_BCHW: Tensor) -> Tensor:
        """Normalized pixels [B, 3, S, S] to all that rests [B, lower_channels, S/16, S/16]."""
        maps = [self.first.lower(pixels_BCHW)]
        for other in self.others:
            maps.append(F.pixel_shuffle(other.whole(pixels_BCHW), 2))  # type: ignore[operator]
        return torch.cat(maps, dim=1)

    def middle(self, lower_BCHW: Tensor) -> Tensor:
        """The first trunk's middle map [B, middle_channels, S/16, S/16]."""
        return lower_BCHW[:, : self.middle_channels]

    def upper(self, lower_BCHW: Tensor) -> Tensor:
        """All last maps [B, top_channels, S/32, S/32]."""
        tops = [self.first.upper(self.middle(lower_BCHW))]
        for start, end in self.places[1:]:
            tops.append(F.pixel_unshuffle(lower_BCHW[:, start:end], 2))
        return torch.cat(tops, dim=1)

    def upper_parameters(self) -> list[nn.Parameter]:
        """The parameters that `upper` uses."""
        return self.first.upper_parameters()

    def lower_parameters(self) -> list[nn.Parameter]:
        """The parameters that `lower` uses."""
        return [*self.first.lower_parameters(), *self.others.parameters()]

    def parts(self) -> list[Trunk | EdgeTPU]:
        """The trunks in the order of the name."""
        return [self.first, *self.others]


def make_trunk(name: str) -> Trunk | SideBySide:
    """The trunk of this name.

    Raises:
        NanocapError: a trunk is unknown, or its like cannot be the first.
    """
    first, *others = name.split(SEPARATOR)
    return SideBySide(first, others) if others else Trunk(first)


def _beside(name: str) -> nn.Module:
    if name not in BESIDE:
        raise NanocapError(f"unknown trunk {name!r}; known are {', '.join(BESIDE)}")
    return BESIDE[name]()
