"""A figure over a set of photos, with the interval that says how sure it is.

Most figures are functions of sums over the photos: resampling photos (the bootstrap) resamples the
sums, a thousand times in one matrix product. Figures of a set as a whole, such as the number of
different words, are no such sums, and drawing a photo twice would distort them: their interval
comes from leaving out a twentieth of the photos at a time (the jackknife).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
M = TypeVar("M", bound="Measure")

RESAMPLES = 1000
GROUPS = 20  # of photos that the jackknife leaves out, one at a time
SEED = 0  # the same photos are drawn for every figure, build and machine
NORMAL_95 = 1.959964


@dataclass(frozen=True)
class Interval:
    """A value and the 95 % interval around it."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether a difference of this size is more than the choice of photos explains."""
        return self.low > 0 or self.high < 0


class Measure(Protocol):
    """A figure of the captions of a set of photos.

    Attributes:
        key: its name in JSON.
        label: its name in a table.
        better: 1 where more is better, -1 where less is, 0 where neither.
    """

    @property
    def key(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def better(self) -> int: ...

    def interval(self) -> Interval:
        """The figure."""
        ...

    def difference(self: M, other: M) -> Interval:
        """This figure less that of other captions of the same photos in the same order."""
        ...


@dataclass(frozen=True)
class SumMeasure:
    """A figure that is a function of sums over the photos."""

    key: str
    label: str
    sums: Floats  # [photos, parts], what each photo adds to each part
    value: Callable[[Floats], Floats]  # [..., parts] to [...]
    better: int = 1
    offset: float = 0.0  # added to the value, where a scorer aggregates by a rule that is no sum

    def interval(self) -> Interval:
        """The figure, with the percentile interval of the bootstrap over photos."""
        return _percentiles(self._at_all(), self._resampled())

    def difference(self, other: SumMeasure) -> Interval:
        """Paired: both are computed on the same draws of photos."""
        value = self._at_all() - other._at_all()
        return _percentiles(value, self._resampled() - other._resampled())

    def _at_all(self) -> float:
        return float(self.value(self.sums.sum(0))) + self.offset

    def _resampled(self) -> Floats:
        return self.value(_draws(len(self.sums)) @ self.sums) + self.offset


@dataclass(frozen=True)
class SetMeasure:
    """A figure of a set of texts as a whole."""

    key: str
    label: str
    texts: tuple[str, ...]  # one a photo
    value: Callable[[Sequence[str]], float]  # of any part of the texts
    better: int = 1

    def interval(self) -> Interval:
        """The figure, with the normal interval of the delete-a-group jackknife."""
        return _jackknife(self.value(self.texts), self._without_a_group())

    def difference(self, other: SetMeasure) -> Interval:
        """Paired: the same photos are left out of both."""
        value = self.value(self.texts) - other.value(other.texts)
        return _jackknife(value, self._without_a_group() - other._without_a_group())

    def _without_a_group(self) -> Floats:
        groups = min(GROUPS, len(self.texts))
        return np.array(
            [
                self.value([text for i, text in enumerate(self.texts) if i % groups != left_out])
                for left_out in range(groups)
            ]
        )


def mean_measure(
    key: str, label: str, values: Sequence[float] | Floats, scale: float = 1.0, better: int = 1
) -> SumMeasure:
    """The mean over the photos of one value each, times `scale`."""
    column = np.asarray(values, np.float64)
    sums = np.stack([column, np.ones_like(column)], 1)
    return SumMeasure(key, label, sums, _Ratio(scale), better)


@dataclass(frozen=True)
class _Ratio:
    scale: float

    def __call__(self, sums: Floats) -> Floats:
        return self.scale * ratio(sums[..., 0], sums[..., 1])


def ratio(part: Floats, whole: Floats) -> Floats:
    """Element by element; 0 where the whole is 0."""
    return np.divide(part, whole, out=np.zeros_like(part * 1.0), where=whole != 0)


@lru_cache(maxsize=1)  # every figure of a set takes the same
def _draws(photos: int) -> Floats:
    """How often each photo is drawn in each resample, [RESAMPLES, photos]."""
    shares = np.full(photos, 1 / photos)
    return np.random.default_rng(SEED).multinomial(photos, shares, RESAMPLES).astype(np.float64)


def _percentiles(value: float, resampled: Floats) -> Interval:
    low, high = np.percentile(resampled, (2.5, 97.5))
    return Interval(value, float(low), float(high))


def _jackknife(value: float, without: Floats) -> Interval:
    groups = len(without)
    deviation = np.sqrt((groups - 1) / groups * ((without - without.mean()) ** 2).sum())
    reach = NORMAL_95 * float(deviation)
    # a part of a set is smaller than the set: the spread counts, not the place
    return Interval(value, value - reach, value + reach)
