"""The ranges that activations take on real photos: what static int8 is scaled by.

ONNX Runtime's own calibrators hold every intermediate tensor of every photo in memory, gigabytes of
them; these hold a pair of numbers or a histogram a tensor. The ranges feed its quantizer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx

from nanocap.convert.errors import ConversionError
from nanocap.convert.graphs.sessions import open_session
from nanocap.convert.quantization.ranges import BINS, METHODS, Histogram

Feeds = Mapping[str, npt.NDArray[Any]]
FeedSource = Callable[[], Iterator[Feeds]]  # the inputs of a graph, run by run
Ranges = dict[str, tuple[float, float]]
Run = Callable[[Feeds], list[npt.NDArray[np.float32]]]
COUNTED = 100_000  # about so many values of a tensor in a run make its histogram, evenly spread


def collect_histograms(
    model: onnx.ModelProto, tensors: Iterable[str], feeds: FeedSource
) -> dict[str, Histogram]:
    """What each tensor held while the graph ran on `feeds`, which is called twice.

    Args:
        model: a float graph.
        tensors: names of float values that its nodes make.

    Raises:
        ConversionError: no inputs, or a value that is not finite.
    """
    names = sorted(set(tensors))
    run = _runner(model, names)
    extremes = _extremes(run, names, feeds)
    counts = {name: np.zeros(BINS, np.int64) for name in names}
    for values in map(run, feeds()):
        for name, value in zip(names, values, strict=True):
            low, high = extremes[name]
            some = value.ravel()[:: value.size // COUNTED | 1]  # odd: maps have even rows
            span = (low, high) if low < high else (low, low + 1)
            counts[name] += np.histogram(some, BINS, span)[0]
    return {name: Histogram(counts[name], *extremes[name]) for name in names}


def choose_ranges(histograms: Mapping[str, Histogram], method: str) -> Ranges:
    """The range of each tensor.

    Args:
        method: one of `ranges.METHODS`.

    Raises:
        ConversionError: there is no such method.
    """
    if method not in METHODS:
        known = ", ".join(METHODS)
        raise ConversionError(f"unknown calibration method {method!r}; known are {known}")
    choose = METHODS[method]
    return {name: choose(seen) for name, seen in histograms.items()}


def collect_extremes(model: onnx.ModelProto, tensors: Iterable[str], feeds: FeedSource) -> Ranges:
    """The least and the largest value of each tensor; as `collect_histograms`, in one pass."""
    names = sorted(set(tensors))
    return _extremes(_runner(model, names), names, feeds)


def _extremes(run: Run, names: list[str], feeds: FeedSource) -> Ranges:
    low, high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    for values in map(run, feeds()):
        low = np.minimum(low, [value.min(initial=np.inf) for value in values])
        high = np.maximum(high, [value.max(initial=-np.inf) for value in values])
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ConversionError("calibration saw no photos, or values that are not finite")
    return {name: (float(a), float(b)) for name, a, b in zip(names, low, high, strict=True)}


def _runner(model: onnx.ModelProto, names: list[str]) -> Run:
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    for name in names:
        value = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        probe.graph.output.append(value)
    session = open_session(probe.SerializeToString())
    return lambda feeds: cast("list[npt.NDArray[np.float32]]", session.run(names, dict(feeds)))
