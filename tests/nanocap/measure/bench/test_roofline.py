"""Limits by hand, and the peaks they stand on."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from nanocap.measure.bench.counts import Counts
from nanocap.measure.bench.peaks import (
    CACHED,
    CACHED_TIMES,
    COPY,
    FLOAT,
    INTEGER,
    QDQ,
    PeakTasks,
    product_graphs,
)
from nanocap.measure.bench.roofline import Peaks, Roofline
from nanocap.measure.bench.timing import Timing

PEAKS = Peaks(
    threads=1,
    float_multiply_adds=50e9,
    int8_multiply_adds=200e9,
    memory_bytes=10e9,
    cache_bytes=40e9,
)


def counted(int8: int, float_: int, moved: int) -> Counts:
    return Counts(int8, float_, weight_bytes=0, read_bytes=moved, activation_bytes=0)


def test_both_kinds_of_arithmetic_add_up() -> None:
    roofline = Roofline.of(counted(int8=400_000_000, float_=50_000_000, moved=1_000_000), PEAKS)
    assert roofline.compute_ms == pytest.approx(2.0 + 1.0)
    assert roofline.memory_ms == pytest.approx(0.1)
    assert roofline.limit_ms == roofline.compute_ms
    assert roofline.share(6.0) == pytest.approx(0.5)
    assert roofline.gops(6.0) == pytest.approx(2 * 0.45 / 0.006)


def test_a_stage_that_waits_for_memory() -> None:
    roofline = Roofline.of(counted(int8=2_000_000, float_=0, moved=5_000_000), PEAKS)
    assert roofline.limit_ms == pytest.approx(0.5)
    assert roofline.share(1.0) == pytest.approx(0.5)


def test_a_stage_whose_bytes_stay_in_a_cache_passes_the_limit_of_memory() -> None:
    roofline = Roofline.of(counted(int8=2_000_000, float_=0, moved=8_000_000), PEAKS)
    assert (roofline.memory_ms, roofline.cache_ms) == pytest.approx((0.8, 0.2))
    assert roofline.share(0.4) == pytest.approx(2.0)
    assert roofline.cached_share(0.4) == pytest.approx(0.5)
    busy = Roofline.of(counted(int8=60_000_000, float_=0, moved=8_000_000), PEAKS)
    assert busy.cached_share(0.4) == pytest.approx(0.75), "its arithmetic is the longer part"


def test_rates_in_the_usual_units() -> None:
    assert PEAKS.float_gflops == pytest.approx(100)
    assert PEAKS.int8_gops == pytest.approx(400)
    assert PEAKS.memory_gigabytes == pytest.approx(10)
    assert PEAKS.cache_gigabytes == pytest.approx(40)


def test_peaks_from_medians() -> None:
    tasks = PeakTasks(side=100, block_bytes=3_000_000)
    timings = {FLOAT: 4.0, INTEGER: 2.0, QDQ: 1.0, COPY: 0.5, CACHED: 1.0}
    peaks = tasks.peaks(2, {kind: Timing((ms,)) for kind, ms in timings.items()})
    assert peaks.threads == 2
    assert peaks.float_multiply_adds == pytest.approx(100**3 / 4e-3)
    assert peaks.int8_multiply_adds == pytest.approx(100**3 / 1e-3), "the faster of the two"
    assert peaks.memory_bytes == pytest.approx(2 * 3_000_000 / 0.5e-3), "read and written"
    assert peaks.cache_bytes == pytest.approx(CACHED_TIMES * 2 * 3_000_000 / 1e-3)


@pytest.mark.parametrize("threads", [1, 2])
def test_every_peak_runs(threads: int) -> None:
    runs = PeakTasks(side=64, block_bytes=100_001).runs(threads)
    assert set(runs) == {FLOAT, INTEGER, QDQ, COPY, CACHED}
    for run in runs.values():
        run()
        run()


def test_the_three_products_are_the_same_product() -> None:
    side = 64
    levels = np.random.default_rng(3).integers(0, 256, (side, side), dtype=np.uint8)

    def product(kind: str, a: object) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        session = onnxruntime.InferenceSession(
            product_graphs(side)[kind], providers=["CPUExecutionProvider"]
        )
        return np.asarray(session.run(["y"], {"a": a})[0], dtype=np.float64)

    centred = (levels.astype(np.float32) - 128) / 64
    exact = product(FLOAT, centred)
    assert np.allclose(product(INTEGER, levels) / 64**2, exact, atol=1e-4)
    rounded = np.clip((product(QDQ, levels) - 128) * side / 64, -128, 127)
    assert np.abs(rounded - np.clip(exact, -128, 127)).max() <= 1
