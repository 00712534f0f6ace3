"""An SVG element to stand inside a page: its colours and type come from the page's style."""

from __future__ import annotations

from dataclasses import dataclass, field

from markupsafe import Markup

WIDTH = 480  # of every plot, in its own units: texts of 12 stay legible on a phone
COLOURS = 6  # series that the style tells apart
LETTER, LINE = 6.2, 13.0  # about the width of a letter, and the height of a line


def series(index: int) -> str:
    """The style's class of a series."""
    return f"s{index % COLOURS}"


class Drawing:
    """Lines, texts and marks on a plane whose y grows downwards.

    Args:
        height: in the units of `WIDTH`.
        label: what the plot shows, for whoever does not see it.
    """

    def __init__(self, height: float, label: str) -> None:
        self._head = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
            WIDTH, _short(height), label
        )
        self._parts: list[Markup] = []

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        """A line of a class of the style."""
        places = map(_short, (x1, y1, x2, y2))
        self._add('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>', kind, *places)

    def text(self, x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> None:
        """A text whose baseline is at y; `anchor` is start, middle or end."""
        template = '<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>'
        self._add(template, kind, _short(x), _short(y), anchor, text)

    def circle(self, x: float, y: float, radius: float, kind: str, title: str) -> None:
        """A mark; `title` appears when it is pointed at."""
        template = '<circle class="{}" cx="{}" cy="{}" r="{}"><title>{}</title></circle>'
        self._add(template, kind, _short(x), _short(y), _short(radius), title)

    def bar(self, x: float, y: float, width: float, height: float, kind: str, title: str) -> None:
        """A filled rectangle; `title` appears when it is pointed at."""
        template = '<rect class="{}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>'
        self._add(template, kind, *map(_short, (x, y, max(width, 0), height)), title)

    def markup(self) -> Markup:
        """The element, ready for a page."""
        return self._head + Markup("").join(self._parts) + Markup("</svg>")

    def _add(self, template: str, *values: str) -> None:
        self._parts.append(Markup(template).format(*values))


def text_width(text: str) -> float:
    """About how wide a label is drawn."""
    return LETTER * len(text)


@dataclass
class Labels:
    """The labels placed so far, as left end, right end and baseline."""

    placed: list[tuple[float, float, float]] = field(default_factory=list)

    def free(self, left: float, level: float, text: str, *, down: bool) -> float:
        """The nearest baseline, from `level` downwards or upwards, that is free for `text`."""
        right = left + text_width(text)
        while any(
            left < other_right and other_left < right and abs(level - other) < LINE
            for other_left, other_right, other in self.placed
        ):
            level += LINE if down else -LINE
        self.placed.append((left, right, level))
        return level


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
