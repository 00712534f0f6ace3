"""One budget over all axes: what goes is what matters least, wherever it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from nanocap.distill.pruning.axes import Axis, Kept, Site, by_head
from nanocap.errors import OptionError

#: How much each channel of a site matters, [heads * channels], by `Site.masked`.
Importance = Mapping[str, Tensor]


def check_keep(axes: Sequence[Axis], keep: float) -> None:
    """That so small a share can be kept.

    Raises:
        OptionError: `keep` is no share, or less than one channel of every head.
    """
    if not 0 < keep <= 1:
        raise OptionError(f"keep {keep:g} must be a share above 0 and at most 1")
    least = sum(axis.cost for axis in axes) / prunable(axes)
    if keep < least:
        up = math.ceil(1000 * least) / 1000
        raise OptionError(f"keep {keep:g} leaves some heads no channel: keep at least {up:g}")


def prunable(axes: Sequence[Axis]) -> int:
    """Parameters that may go."""
    return sum(axis.cost * axis.channels for axis in axes)


def choose(axes: Sequence[Axis], importance: Importance, keep: float) -> list[int]:
    """How many channels of a head each axis keeps: together at most a share `keep` of `prunable`.

    A unit's importance is the mean over the heads of its axis, so that units of many parameters
    and of few are comparable. Before all of them are ranked together it is divided by the mean of
    its kind, since gradients in attentions and in MLPs are of different sizes. UPop
    standardizes fully; importance that is a size has a zero to keep: what does nothing goes first.
    One unit of each axis stays whatever it is worth.
    """
    units = [_units(axis, importance) for axis in axes]
    for kind in {axis.kind for axis in axes}:
        own = [index for index, axis in enumerate(axes) if axis.kind == kind]
        mean = float(torch.cat([units[index] for index in own]).mean()) or 1.0
        for index in own:
            units[index] = units[index] / mean
    # the first unit of an axis, its best, is not among those that may go
    ranked = torch.cat([unit[1:] for unit in units]).argsort(stable=True)
    owners = [index for index, axis in enumerate(axes) for _ in range(axis.channels - 1)]
    counts, left = [axis.channels for axis in axes], prunable(axes)
    most = math.floor(keep * left + 1e-6)  # a share of 1 is all, whatever rounding says
    for place in ranked.tolist():
        if left <= most:
            break
        counts[owners[place]] -= 1
        left -= axes[owners[place]].cost
    return counts


def keep_best(axes: Sequence[Axis], importance: Importance, counts: Sequence[int]) -> Kept:
    """The channels that stay: of each head the most important."""
    return {
        site.masked: _best(site, importance[site.masked], count)
        for axis, count in zip(axes, counts, strict=True)
        for site in axis.sites
    }


def _units(axis: Axis, importance: Importance) -> Tensor:
    """Importance of each unit in float64, the best first: [channels]."""
    heads = torch.cat([by_head(site, importance[site.masked]) for site in axis.sites])
    return heads.double().sort(dim=1, descending=True).values.mean(0)


def _best(site: Site, importance: Tensor, count: int) -> Tensor:
    heads = by_head(site, importance)
    # stable: of equal channels the first stay, on every machine
    rank = heads.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return (rank < count).flatten()
