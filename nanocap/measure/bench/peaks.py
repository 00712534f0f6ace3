"""What the machine itself can do at best: tasks that are timed in turns with the model's.

The products run in the same ONNX Runtime as the model, so that a share below one is the model's
shape and not another library's kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from nanocap.measure.bench.graphs import import_onnx, open_session
from nanocap.measure.bench.roofline import Peaks
from nanocap.measure.bench.timing import Timing

OPSET = 20
IR_VERSION = 9
WINDOW_BYTES = 16 << 20  # that one thread copies at a time, from the main memory
CACHED_BYTES = 4 << 20  # that all threads copy again and again
CACHED_TIMES = 8

FLOAT, INTEGER, QDQ = "fp32", "int8 MatMulInteger", "int8 QDQ"
COPY, CACHED = "copy", "copy in cache"
Bytes: TypeAlias = npt.NDArray[np.uint8]


def product_graphs(side: int) -> dict[str, bytes]:
    """Products of an input and a weight, [side, side] each, by how they are written.

    The weight is a constant, as in a model, so that the runtime may arrange it at load.
    """
    onnx = import_onnx()
    helper, types = onnx.helper, onnx.TensorProto
    rng = np.random.default_rng(0)
    # 7 bits: older processors without VNNI saturate on larger products, and would do other work
    small = rng.integers(-64, 64, (side, side), dtype=np.int8)
    scale, zero_a, zero_b = np.float32(1 / 64), np.uint8(128), np.int8(0)

    def graph(nodes: list[Any], a: int, y: int, constants: Mapping[str, Any]) -> bytes:
        ends = [helper.make_tensor_value_info(n, t, [side, side]) for n, t in (("a", a), ("y", y))]
        weights = [onnx.numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()]
        made = helper.make_graph(nodes, "product", ends[:1], ends[1:], weights)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(made, opset_imports=opsets, ir_version=IR_VERSION)
        return bytes(model.SerializeToString())

    node = helper.make_node
    quantized = {"b": small, "scale": scale, "zero_a": zero_a, "zero_b": zero_b}
    return {
        FLOAT: graph(
            [node("MatMul", ["a", "b"], ["y"])],
            *(types.FLOAT, types.FLOAT, {"b": small.astype(np.float32) / 64}),
        ),
        INTEGER: graph(
            [node("MatMulInteger", ["a", "b", "zero_a", "zero_b"], ["y"])],
            *(types.UINT8, types.INT32, {k: v for k, v in quantized.items() if k != "scale"}),
        ),
        QDQ: graph(
            [
                node("DequantizeLinear", ["a", "scale", "zero_a"], ["a_float"]),
                node("DequantizeLinear", ["b", "scale", "zero_b"], ["b_float"]),
                node("MatMul", ["a_float", "b_float"], ["product"]),
                node("QuantizeLinear", ["product", "scale_y", "zero_a"], ["y"]),
            ],
            *(types.UINT8, types.UINT8, {**quantized, "scale_y": np.float32(side / 64)}),
        ),
    }


class PeakTasks:
    """The calls that find the peaks, for any number of threads.

    Args:
        side: of the square matrices.
        block_bytes: of the memory that copies walk through; several times the largest cache.

    Raises:
        MissingExtraError: `onnx` is not installed.
    """

    def __init__(self, side: int, block_bytes: int) -> None:
        self.side = side
        self._cached = min(block_bytes, CACHED_BYTES)
        self._graphs = product_graphs(side)
        self._source = np.ones(block_bytes, np.uint8)
        self._target = np.ones(block_bytes, np.uint8)  # ones: zeros would get no memory yet

    def runs(self, threads: int) -> dict[str, Callable[[], object]]:
        """A call for each kind of peak: `FLOAT`, `INTEGER`, `QDQ`, `COPY`, `CACHED`."""
        calls: dict[str, Callable[[], object]] = {}
        for kind, graph in self._graphs.items():
            calls[kind] = self._product(open_session(graph, threads), kind)
        window, block = self._window(threads), self._source.nbytes
        # one window after the other, so that each comes from the main memory
        calls[COPY] = self._copy(threads, range(0, block - window + 1, window), window, times=1)
        calls[CACHED] = self._copy(threads, range(1), self._cached, CACHED_TIMES)
        return calls

    def peaks(self, threads: int, timings: Mapping[str, Timing]) -> Peaks:
        """The rates that the medians stand for, by kind; the faster of the two int8 counts."""
        products = self.side**3
        int8_ms = min(timings[INTEGER].p50, timings[QDQ].p50)
        return Peaks(
            threads=threads,
            float_multiply_adds=1000 * products / timings[FLOAT].p50,
            int8_multiply_adds=1000 * products / int8_ms,
            memory_bytes=1000 * 2 * self._window(threads) / timings[COPY].p50,
            cache_bytes=1000 * 2 * CACHED_TIMES * self._cached / timings[CACHED].p50,
        )

    def _product(self, session: Any, kind: str) -> Callable[[], object]:
        rng = np.random.default_rng(1)
        levels = rng.integers(0, 256, (self.side, self.side), dtype=np.uint8)
        feeds = {"a": levels.astype(np.float32) / 64 if kind == FLOAT else levels}
        return lambda: session.run(["y"], feeds)

    def _window(self, threads: int) -> int:
        """Bytes of one copy: short beside the system's time slices, long beside its own start."""
        return min(self._source.nbytes, threads * WINDOW_BYTES)

    def _copy(self, threads: int, starts: range, window: int, times: int) -> Callable[[], object]:
        """Copies `window` bytes `times` over, each call from the next of `starts` on."""
        places = cycle(starts)
        pool = ThreadPoolExecutor(threads) if threads > 1 else None

        def copy(target: Bytes, source: Bytes) -> None:
            for _ in range(times):
                np.copyto(target, source)  # outside Python's lock

        def run() -> None:
            part = slice(start := next(places), start + window)
            target, source = self._target[part], self._source[part]
            if pool is None:
                copy(target, source)
            else:
                pieces = np.array_split(target, threads), np.array_split(source, threads)
                list(pool.map(copy, *pieces))

        return run
