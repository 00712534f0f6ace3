"""The roofline: operations a second over operations a byte, both logarithmic.

Williams, Waterman and Patterson, "Roofline" (2009). The roof is measured: the slopes are the rates
of a copy, the flat lines those of a large matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from nanocap.measure.bench.roofline import Peaks
from nanocap.measure.report.plots.drawing import WIDTH, Drawing, Labels, series
from nanocap.measure.report.plots.scale import Scale, tick_text

LEFT, RIGHT, TOP, BOTTOM, HEIGHT = 52, 14, 26, 44, 340


@dataclass(frozen=True)
class Point:
    """A stage of a run."""

    label: str
    intensity: float  # operations a byte moved; a multiply-add is two
    gops: float  # billions of operations a second that it reached
    series: int  # stages of one artifact have one colour


def roofline_plot(peaks: Peaks, points: Sequence[Point]) -> Markup:
    """The plot for one number of threads; `points` were measured with as many."""
    ridge = peaks.int8_gops / peaks.memory_gigabytes
    across = Scale(
        0.5 * min([1.0, *(point.intensity for point in points)]),
        3 * max([ridge, *(point.intensity for point in points)]),
        *(LEFT, WIDTH - RIGHT),
        is_log=True,
    )
    top = 1.6 * max([peaks.int8_gops, peaks.float_gflops, *(point.gops for point in points)])
    low = 0.5 * min([peaks.memory_gigabytes * across.low, *(point.gops for point in points)])
    bottom = HEIGHT - BOTTOM
    up = Scale(low, top, bottom, TOP, is_log=True)
    drawing = Drawing(HEIGHT, f"Roofline at {peaks.threads} threads: GOPS over operations a byte")
    for tick in across.ticks():
        drawing.line(across(tick), TOP, across(tick), bottom, "grid")
        drawing.text(across(tick), bottom + 17, tick_text(tick), "tick", "middle")
    for tick in up.ticks():
        drawing.line(LEFT, up(tick), WIDTH - RIGHT, up(tick), "grid")
        drawing.text(LEFT - 8, up(tick) + 4, tick_text(tick), "tick", "end")
    drawing.text(4, 14, "billions of operations a second")
    drawing.text(WIDTH - RIGHT, HEIGHT - 8, "operations a byte moved", "", "end")
    flat = max(peaks.int8_gops, peaks.float_gflops)
    slopes = (
        (peaks.memory_gigabytes, "copy", "roof"),
        (peaks.cache_gigabytes, "copy in cache", "roof dashed"),
    )
    for index, (rate, name, kind) in enumerate(slopes):
        # from where it enters the plot to the highest of the flat lines
        start, end = max(across.low, low / rate), min(across.high, flat / rate)
        drawing.line(across(start), up(start * rate), across(end), up(end * rate), kind)
        key = bottom - 28 + 16 * index
        drawing.text(WIDTH - RIGHT - 34, key + 4, f"{name}, {rate:.3g} GB/s", "small", "end")
        drawing.line(WIDTH - RIGHT - 28, key, WIDTH - RIGHT, key, kind)
    fastest = max(peaks.memory_gigabytes, peaks.cache_gigabytes)
    for rate, name in ((peaks.int8_gops, "int8"), (peaks.float_gflops, "fp32")):
        start = min(max(across.low, rate / fastest), across.high)
        drawing.line(across(start), up(rate), across(across.high), up(rate), "roof")
        drawing.text(WIDTH - RIGHT, up(rate) - 5, f"{name}, {rate:.3g} GOPS", "small", "end")
    labels = Labels()
    for point in sorted(points, key=lambda one: -one.gops):
        title = f"{point.label}: {point.gops:.1f} GOPS, {point.intensity:.1f} operations a byte"
        x, y = across(point.intensity), up(point.gops)
        drawing.circle(x, y, 5, f"mark {series(point.series)}", title)
        drawing.text(x + 9, labels.free(x + 9, y + 4, point.label, down=True), point.label, "small")
    return drawing.markup()
