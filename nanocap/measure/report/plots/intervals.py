"""Values with their 95 % intervals, a line each, over one axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from nanocap.measure.metrics.measures import Interval
from nanocap.measure.report.plots.drawing import WIDTH, Drawing, series
from nanocap.measure.report.plots.scale import Scale, padded, tick_text

LEFT, RIGHT, TOP, BOTTOM = 166, 14, 6, 24
ROW, SECOND = 24, 8  # height of a line; how far the second mark of a line is below the first


@dataclass(frozen=True)
class Row:
    """One line."""

    label: str
    marks: tuple[Interval, ...]  # a value for each series
    is_faint: bool = False  # drawn in grey, as where a difference means nothing


def interval_plot(rows: Sequence[Row], label: str) -> Markup:
    """The plot; `label` says what it shows. The axis holds zero."""
    ends = [end for row in rows for mark in row.marks for end in (mark.low, mark.high, mark.value)]
    low, high = padded(min(0.0, *ends), max(0.0, *ends), 0.03)
    axis = Scale(low if min(ends) < 0 else 0.0, high, LEFT, WIDTH - RIGHT)
    bottom = TOP + ROW * len(rows)
    drawing = Drawing(bottom + BOTTOM, label)
    for tick in axis.ticks():
        drawing.line(axis(tick), TOP, axis(tick), bottom, "zero" if tick == 0 else "grid")
        drawing.text(axis(tick), bottom + 16, tick_text(tick), "tick", "middle")
    for index, row in enumerate(rows):
        middle = TOP + ROW * (index + 0.5)
        drawing.text(LEFT - 10, middle + 4, row.label, "", "end")
        for number, mark in enumerate(row.marks):
            y = middle + SECOND * (number - (len(row.marks) - 1) / 2)
            kind = "faint" if row.is_faint else series(number)
            title = f"{row.label}: {mark.value:.2f} [{mark.low:.2f}, {mark.high:.2f}]"
            drawing.line(axis(mark.low), y, axis(mark.high), y, f"interval {kind}")
            drawing.circle(axis(mark.value), y, 4, f"mark {kind}", title)
    return drawing.markup()
