"""From values to places on a plot, and the round values that its axis names."""

from __future__ import annotations

import math
from dataclasses import dataclass

STEPS = (1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True)
class Scale:
    """A straight or logarithmic way from values `low` to `high` to places `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        """The place of a value."""
        low, high = self.low, self.high
        if self.is_log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """Round values between the ends: `most` or fewer, or the powers of ten."""
        if self.is_log:
            first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
            return [10.0**power for power in range(first, last + 1)]
        rough = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * one for one in STEPS if power * one >= rough * 0.999)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [index * step for index in range(first, last + 1)]


def padded(low: float, high: float, part: float = 0.08) -> tuple[float, float]:
    """Both ends moved outwards by a part of what lies between, or of the value where they meet."""
    room = part * ((high - low) or abs(high) or 1.0)
    return low - room, high + room


def tick_text(value: float) -> str:
    """A round value as people write it."""
    return f"{value:,.6g}" if value >= 1e-4 or value <= 0 else f"{value:.0e}"
