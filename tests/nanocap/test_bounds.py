"""Arguments that cannot be give one line that says so."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from nanocap.bounds import number, text, whole
from nanocap.errors import OptionError


@pytest.mark.parametrize("value", [1, 64, np.int32(7), np.uint8(7)])
def test_whole_numbers(value: Any) -> None:
    assert whole("beams", value, 1, 64) == value
    assert type(whole("beams", value, 1, 64)) is int


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("3", "beams must be a whole number, got '3'"),
        (2.5, "beams must be a whole number, got 2.5"),
        (2.0, "beams must be a whole number, got 2.0"),
        (None, "beams must be a whole number, got None"),
        (True, "beams must be a whole number, got True"),
        ([1], r"beams must be a whole number, got \[1\]"),
        (0, "beams must be at least 1, got 0"),
        (65, "beams must be at most 64, got 65"),
    ],
)
def test_no_whole_number(value: Any, message: str) -> None:
    with pytest.raises(OptionError, match=f"^{message}$"):
        whole("beams", value, 1, 64)


@pytest.mark.parametrize("value", [0, 1.5, np.float32(2.5), np.int64(3)])
def test_numbers(value: Any) -> None:
    assert number("penalty", value, 0, 10) == value


@pytest.mark.parametrize("value", ["1", math.nan, math.inf, None, True, 1j, b"1"])
def test_no_number(value: Any) -> None:
    with pytest.raises(OptionError, match=r"^penalty must be a number, got "):
        number("penalty", value, 0, 10)


def test_numbers_outside() -> None:
    with pytest.raises(OptionError, match=r"^penalty must be at most 10, got 10\.5$"):
        number("penalty", 10.5, 0, 10)
    with pytest.raises(OptionError, match=r"^penalty must be at least 0, got -1"):
        number("penalty", -1, 0)


def test_texts() -> None:
    assert text("length", "short") == "short"
    with pytest.raises(OptionError, match=r"^length must be a text, got 5$"):
        text("length", 5)
