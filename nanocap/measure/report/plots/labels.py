"""Places for labels that do not cover each other."""

from __future__ import annotations

from dataclasses import dataclass, field

LETTER, LINE = 6.2, 13.0  # about the width of a letter, and the height of a line


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
