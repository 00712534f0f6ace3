"""The ranges that activations take on real photos: what static int8 is scaled by.

ONNX Runtime's own calibrators hold every intermediate tensor of every photo in memory, gigabytes of
them; these hold a pair of numbers or a histogram a tensor. The ranges feed its quantizer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import onnx

from nanocap.convert.errors import ConversionError
from nanocap.convert.sessions import open_session

Feeds = Mapping[str, npt.NDArray[Any]]
FeedSource = Callable[[], Iterator[Feeds]]  # the inputs of a graph, run by run
Ranges = dict[str, tuple[float, float]]
BINS = 2048
PERCENTILE = 99.99
LEVELS = 255  # steps of uint8


class Method(Protocol):
    """Chooses a range from how often a tensor's values were seen."""

    def __call__(
        self, counts: npt.NDArray[np.int64], low: float, high: float
    ) -> tuple[float, float]:
        """`counts` [BINS] over equal bins from `low` to `high`, the extremes that were seen."""


def minmax(counts: npt.NDArray[np.int64], low: float, high: float) -> tuple[float, float]:
    """All that was seen."""
    return low, high


def percentile(counts: npt.NDArray[np.int64], low: float, high: float) -> tuple[float, float]:
    """All but the outermost 0.01 percent, split between both ends."""
    tail = counts.sum() * (1 - PERCENTILE / 100) / 2
    edges = np.linspace(low, high, BINS + 1)
    below, above = np.cumsum(counts), np.cumsum(counts[::-1])
    return (
        float(edges[np.searchsorted(below, tail)]),
        float(edges[BINS - np.searchsorted(above, tail)]),
    )


def mse(counts: npt.NDArray[np.int64], low: float, high: float) -> tuple[float, float]:
    """The range with the least squared error of rounding inside it and of clipping outside it.

    Each end is drawn in step by step as long as that helps.
    """
    centres = low + (np.arange(BINS) + 0.5) * (high - low) / BINS

    def error(a: float, b: float) -> float:
        clipped = centres - np.clip(centres, a, b)
        return float(counts @ clipped**2 + counts.sum() * ((b - a) / LEVELS) ** 2 / 12)

    best, step = (low, high), (high - low) / 100
    while True:
        options = [(min(best[0] + step, 0.0), best[1]), (best[0], max(best[1] - step, 0.0))]
        better = min(options, key=lambda option: error(*option))
        if not error(*better) < error(*best):
            return best
        best = better


METHODS: dict[str, Method] = {"minmax": minmax, "percentile": percentile, "mse": mse}


def collect_ranges(
    model: onnx.ModelProto,
    tensors: Iterable[str],
    feeds: FeedSource,
    method: str,
) -> Ranges:
    """The range of each tensor while the graph runs on `feeds`.

    Args:
        model: a float graph.
        tensors: names of float values that its nodes make.
        feeds: called once, or twice where a histogram is needed.
        method: one of `METHODS`.

    Raises:
        ConversionError: no such method, no inputs, or a value that is not finite.
    """
    if method not in METHODS:
        known = ", ".join(METHODS)
        raise ConversionError(f"unknown calibration method {method!r}; known are {known}")
    names = sorted(set(tensors))
    run = _runner(model, names)
    low, high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    for values in map(run, feeds()):
        low = np.minimum(low, [value.min() for value in values])
        high = np.maximum(high, [value.max() for value in values])
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ConversionError("calibration saw no photos, or values that are not finite")
    if method == "minmax":
        return {n: (float(a), float(b)) for n, a, b in zip(names, low, high, strict=True)}
    counts = np.zeros((len(names), BINS), np.int64)
    for values in map(run, feeds()):
        for row, value, a, b in zip(counts, values, low, high, strict=True):
            row += np.histogram(value, BINS, (a, b) if a < b else (a, a + 1))[0]
    choose = METHODS[method]
    return {
        name: choose(row, float(a), float(b))
        for name, row, a, b in zip(names, counts, low, high, strict=True)
    }


def _runner(
    model: onnx.ModelProto, names: list[str]
) -> Callable[[Feeds], list[npt.NDArray[np.float32]]]:
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    for name in names:
        value = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        probe.graph.output.append(value)
    session = open_session(probe.SerializeToString())
    return lambda feeds: cast("list[npt.NDArray[np.float32]]", session.run(names, dict(feeds)))
