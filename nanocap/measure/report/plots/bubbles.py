"""Quality over milliseconds, the size of the file as the size of the mark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from nanocap.measure.report.plots.drawing import WIDTH, Drawing, Labels, series, text_width
from nanocap.measure.report.plots.scale import Scale, padded, tick_text

LEFT, RIGHT, TOP, BOTTOM, HEIGHT = 48, 20, 26, 44, 320
LARGEST = 30.0  # radius of the largest file


@dataclass(frozen=True)
class Bubble:
    """One mark."""

    label: str
    ms: float
    bytes: int
    quality: float | None  # None where nobody measured it: it stands, hollow, on the axis
    series: int  # artifacts of one name have one colour


def bubble_plot(bubbles: Sequence[Bubble], quality: str) -> Markup:
    """The plot; `quality` names the vertical axis."""
    known = [bubble.quality for bubble in bubbles if bubble.quality is not None]
    low, high = padded(min(known), max(known), 0.35) if known else (0.0, 1.0)
    bottom = HEIGHT - BOTTOM
    across = Scale(0, 1.25 * max(bubble.ms for bubble in bubbles), LEFT, WIDTH - RIGHT)
    up = Scale(low, high, bottom - LARGEST, TOP + LARGEST)
    drawing = Drawing(HEIGHT, f"{quality} over milliseconds a caption, by artifact")
    for tick in across.ticks(5):
        drawing.line(across(tick), TOP, across(tick), bottom, "grid")
        drawing.text(across(tick), bottom + 17, tick_text(tick), "tick", "middle")
    for tick in up.ticks(5) if known else ():
        drawing.line(LEFT, up(tick), WIDTH - RIGHT, up(tick), "grid")
        drawing.text(LEFT - 8, up(tick) + 4, tick_text(tick), "tick", "end")
    drawing.line(LEFT, bottom, WIDTH - RIGHT, bottom, "zero")
    drawing.text(WIDTH - RIGHT, HEIGHT - 8, "milliseconds a caption", "", "end")
    drawing.text(4, 14, quality if known else "quality was not measured")
    most = max(bubble.bytes for bubble in bubbles)
    for bubble in sorted(bubbles, key=lambda one: -one.bytes):  # small ones over large ones
        hollow = bubble.quality is None
        y = bottom if bubble.quality is None else up(bubble.quality)
        radius = LARGEST * math.sqrt(bubble.bytes / most)
        title = f"{bubble.label}: {bubble.ms:.1f} ms, {bubble.bytes / 1e6:.2f} MB"
        title += ", quality not measured" if hollow else f", {quality} {bubble.quality:.2f}"
        kind = f"{series(bubble.series)} {'hollow' if hollow else 'bubble'}"
        drawing.circle(across(bubble.ms), y, radius, kind, title)
    labels = Labels()
    for bubble in sorted(bubbles, key=lambda one: one.ms):
        y = bottom if bubble.quality is None else up(bubble.quality)
        half = text_width(bubble.label) / 2
        x = min(max(across(bubble.ms), LEFT + half), WIDTH - RIGHT - half)
        level = y - LARGEST * math.sqrt(bubble.bytes / most) - 5
        level = labels.free(x - half, level, bubble.label, down=False)
        drawing.text(x, level, bubble.label, "small", "middle")
    return drawing.markup()
