"""Which range of an activation int8 keeps: to add a way of choosing is to add a function.

What lies outside a range is clipped to its ends, what lies inside is rounded to one of its steps:
a wide range rounds coarsely, a narrow one clips much. None is best everywhere, so the converter
tries them all (`nanocap.convert.quantization.sensitivity`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

BINS = 2048
PERCENTILE = 99.99
LEVELS = 255  # steps of uint8
FAINT = 1e-4  # counted where nothing was seen: an end bin may hold nothing but what is clipped
SHARES = np.linspace(1, 0.2, 81)  # of what was seen, that `entropy` tries


@dataclass(frozen=True)
class Histogram:
    """How often a tensor's values were seen.

    Attributes:
        counts: int64 [BINS], over equal bins from `low` to `high`.
        low, high: the extremes that were seen.
    """

    counts: npt.NDArray[np.int64]
    low: float
    high: float

    @property
    def centres(self) -> npt.NDArray[np.float64]:
        """Of the bins."""
        return self.low + (np.arange(BINS) + 0.5) * (self.high - self.low) / BINS


class Method(Protocol):
    """Chooses a range from what was seen."""

    def __call__(self, seen: Histogram) -> tuple[float, float]:
        """Its ends."""


def minmax(seen: Histogram) -> tuple[float, float]:
    """All that was seen."""
    return seen.low, seen.high


def percentile(seen: Histogram) -> tuple[float, float]:
    """All but the outermost 0.01 percent, split between both ends."""
    tail = seen.counts.sum() * (1 - PERCENTILE / 100) / 2
    edges = np.linspace(seen.low, seen.high, BINS + 1)
    below, above = np.cumsum(seen.counts), np.cumsum(seen.counts[::-1])
    return (
        float(edges[np.searchsorted(below, tail)]),
        float(edges[BINS - np.searchsorted(above, tail)]),
    )


def mse(seen: Histogram) -> tuple[float, float]:
    """The range with the least squared error of rounding inside it and of clipping outside it.

    Each end is drawn in step by step as long as that helps.
    """
    centres, total = seen.centres, seen.counts.sum()

    def error(a: float, b: float) -> float:
        clipped = centres - np.clip(centres, a, b)
        return float(seen.counts @ clipped**2 + total * ((b - a) / LEVELS) ** 2 / 12)

    best, step = (seen.low, seen.high), (seen.high - seen.low) / 100
    while True:
        options = [(min(best[0] + step, 0.0), best[1]), (best[0], max(best[1] - step, 0.0))]
        better = min(options, key=lambda option: error(*option))
        if not error(*better) < error(*best):
            return best
        best = better


def entropy(seen: Histogram) -> tuple[float, float]:
    """The share of what was seen whose steps tell most of the distribution (Migacz, 2017).

    Both ends are drawn in by the same share. The distribution with what is outside counted into
    its end bins is compared, by Kullback and Leibler's divergence, with what the steps know of it:
    of each step, how much fell into it, spread over those of its bins that were not empty.
    """
    best = min(SHARES, key=lambda share: _lost(seen, share))  # the widest of equals
    return float(seen.low * best), float(seen.high * best)


def _lost(seen: Histogram, share: float) -> float:
    """Nats that the steps of this share of the range do not know."""
    low, high = seen.low * share, seen.high * share
    inside = (seen.centres >= low) & (seen.centres <= high)
    first, end = int(inside.argmax()), BINS - int(inside[::-1].argmax())
    within = seen.counts[first:end].astype(np.float64)
    if within.sum() == 0 or high <= low:
        return np.inf
    known = within.copy()
    known[0] += seen.counts[:first].sum()
    known[-1] += seen.counts[end:].sum()
    step = ((seen.centres[first:end] - low) / (high - low) * LEVELS).round().astype(int)
    filled = np.bincount(step, within > 0, LEVELS + 1)
    spread = np.bincount(step, within, LEVELS + 1) / np.maximum(filled, 1)
    told = np.where(within > 0, spread[step], FAINT) / within.sum()
    known /= known.sum()
    some = known > 0
    return float(known[some] @ np.log(known[some] / told[some]))


METHODS: dict[str, Method] = {
    "minmax": minmax,
    "percentile": percentile,
    "entropy": entropy,
    "mse": mse,
}
