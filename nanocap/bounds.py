"""Bounds of arguments, and their check: an OptionError of one line, no TypeError from inside."""

from __future__ import annotations

import math
import operator
from typing import Any

from nanocap.errors import OptionError

MAX_PIXELS = 100_000_000  # of an image: 100 megapixels, 400 MB once decoded
BATCH = 8  # images through the model at once, where all of them are there from the start
MAX_BATCH = 1024
MAX_BEAMS = 64  # with thousands a search takes gigabytes, and finds the same
MAX_LENGTH_PENALTY = 10


def whole(name: str, value: Any, least: int, most: int | None = None) -> int:
    """`value` as an int from `least` to `most`; numpy's integers count, truth values do not.

    Raises OptionError.
    """
    try:
        found = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        found = None
    if found is None:
        raise OptionError(f"{name} must be a whole number, got {value!r}")
    return int(_within(name, found, least, most))


def number(name: str, value: Any, least: float, most: float | None = None) -> float:
    """`value` as a float from `least` to `most`. Raises OptionError."""
    try:
        found = math.nan if isinstance(value, (bool, str, bytes)) else float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise OptionError(f"{name} must be a number, got {value!r}")
    return _within(name, found, least, most)


def text(name: str, value: Any) -> str:
    """`value`, which must be a text. Raises OptionError."""
    if not isinstance(value, str):
        raise OptionError(f"{name} must be a text, got {value!r}")
    return value


def _within(name: str, value: float, least: float, most: float | None) -> float:
    if value < least:
        raise OptionError(f"{name} must be at least {least}, got {value}")
    if most is not None and value > most:
        raise OptionError(f"{name} must be at most {most}, got {value}")
    return value
