"""Where the milliseconds of a caption go, a bar a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from nanocap.measure.report.plots.drawing import WIDTH, Drawing, series
from nanocap.measure.report.plots.scale import Scale, tick_text

LEFT, RIGHT, TOP, BOTTOM, ROW = 4, 14, 4, 42, 44


@dataclass(frozen=True)
class Bar:
    """One caption's time."""

    label: str
    parts: tuple[tuple[str, float], ...]  # milliseconds by stage, in the order of the way
    whole: float  # milliseconds of a whole caption, measured on its own


def stage_plot(bars: Sequence[Bar]) -> Markup:
    """The plot; the tick at each bar is the whole caption."""
    most = max(max(bar.whole, sum(ms for _, ms in bar.parts)) for bar in bars)
    axis = Scale(0, 1.04 * most, LEFT, WIDTH - RIGHT)
    bottom = TOP + ROW * len(bars)
    drawing = Drawing(bottom + BOTTOM, "Milliseconds of a caption by stage, a bar a run")
    for tick in axis.ticks():
        drawing.line(axis(tick), TOP, axis(tick), bottom, "zero" if tick == 0 else "grid")
        anchor = "start" if tick == 0 else "middle"
        drawing.text(axis(tick), bottom + 16, tick_text(tick), "tick", anchor)
    drawing.text(WIDTH - RIGHT, bottom + 35, "milliseconds a caption", "", "end")
    for index, bar in enumerate(bars):
        top, done = TOP + ROW * index, 0.0
        drawing.text(LEFT + 3, top + 14, f"{bar.label}: {bar.whole:.1f} ms", "small")
        for number, (name, ms) in enumerate(bar.parts):
            x = axis(done)
            title = f"{bar.label}, {name}: {ms:.2f} ms"
            drawing.bar(x, top + 19, axis(done + ms) - x, 16, f"fill {series(number)}", title)
            done += ms
        drawing.line(axis(bar.whole), top + 16, axis(bar.whole), top + 38, "whole")
    return drawing.markup()
