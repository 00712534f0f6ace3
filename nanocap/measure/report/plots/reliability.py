"""How far confidence can be trusted: reliability, and what is wrong among the surest captions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from markupsafe import Markup

from nanocap.measure.metrics.reliability import Reliability
from nanocap.measure.report.plots.drawing import WIDTH, Drawing, series
from nanocap.measure.report.plots.scale import Scale, padded, tick_text

LEFT, RIGHT, TOP, BOTTOM, HEIGHT = 44, 14, 26, 44, 300
SMALLEST, LARGEST = 3.0, 9.0  # radii of marks, by the share of the photos
POINTS = 50  # of a curve


def reliability_plot(sides: Sequence[Reliability]) -> Markup:
    """Of captions of about one confidence, the share that holds; the diagonal is calibrated."""
    across, up = Scale(0, 1, LEFT, WIDTH - RIGHT), Scale(0, 1, HEIGHT - BOTTOM, TOP)
    drawing = Drawing(HEIGHT, "Reliability: the share of captions that hold, over confidence")
    _axes(drawing, across, up, "captions of which all is there", "confidence")
    drawing.line(across(0), up(0), across(1), up(1), "zero")
    for number, side in enumerate(sides):
        for one in side.bins():
            radius = SMALLEST + (LARGEST - SMALLEST) * (one.photos / len(side.confidences)) ** 0.5
            title = f"confidence {one.confidence:.2f}: {one.share:.2f} of {one.photos} captions"
            x, y = across(one.confidence), up(one.share)
            drawing.circle(x, y, radius, f"mark {series(number)}", title)
    return drawing.markup()


def risk_coverage_plot(sides: Sequence[Reliability]) -> Markup:
    """Hallucinated objects among the surest captions, over the share of captions that is kept."""
    curves = [side.curve() for side in sides]
    # of the first few captions the rate jumps between 0 and 100
    kept = [[point for point in curve if point[0] >= 5] for curve in curves]
    _, high = padded(0.0, max([1.0, *(risk for curve in kept for _, risk in curve)]))
    across, up = Scale(0, 100, LEFT, WIDTH - RIGHT), Scale(0, high, HEIGHT - BOTTOM, TOP)
    drawing = Drawing(HEIGHT, "Hallucinated objects among the surest captions, over their share")
    _axes(drawing, across, up, "hallucinated objects, %", "surest captions, %")
    for number, curve in enumerate(kept):
        every = max(1, len(curve) // POINTS)
        shown = [*curve[:-1:every], *curve[-1:]]
        for (x1, y1), (x2, y2) in pairwise(shown):
            kind = f"interval {series(number)}"
            drawing.line(across(x1), up(y1), across(x2), up(y2), kind)
        for coverage, risk in shown[-1:]:
            title = f"all captions: {risk:.1f} %"
            drawing.circle(across(coverage), up(risk), 4, f"mark {series(number)}", title)
    return drawing.markup()


def _axes(drawing: Drawing, across: Scale, up: Scale, above: str, below: str) -> None:
    for tick in across.ticks():
        drawing.line(across(tick), TOP, across(tick), HEIGHT - BOTTOM, "grid")
        drawing.text(across(tick), HEIGHT - BOTTOM + 17, tick_text(tick), "tick", "middle")
    for tick in up.ticks():
        drawing.line(LEFT, up(tick), WIDTH - RIGHT, up(tick), "grid")
        drawing.text(LEFT - 8, up(tick) + 4, tick_text(tick), "tick", "end")
    drawing.text(4, 14, above)
    drawing.text(WIDTH - RIGHT, HEIGHT - 8, below, "", "end")
