"""Figures with their intervals: known distributions, pairing, and what repeats."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanocap.measure.metrics.measures import Interval, SetMeasure, SumMeasure, mean_measure


def test_the_interval_of_a_mean_is_that_of_the_normal_theory() -> None:
    values = np.random.default_rng(1).normal(5, 2, 800)
    found = mean_measure("x", "x", values, 10).interval()
    half = 10 * 1.96 * values.std() / np.sqrt(800)
    assert found.value == pytest.approx(10 * values.mean())
    assert found.low == pytest.approx(found.value - half, abs=0.15 * half)
    assert found.high == pytest.approx(found.value + half, abs=0.15 * half)


def test_the_jackknife_of_a_count_is_that_of_the_binomial() -> None:
    """Texts that hold an x: a count over a set, whose spread is known."""
    texts = tuple("x" if drawn else "o" for drawn in np.random.default_rng(2).random(2000) < 0.3)
    measure = SetMeasure("x", "x", texts, lambda some: float(sum(text == "x" for text in some)))
    found = measure.interval()
    half = 1.96 * np.sqrt(2000 * 0.3 * 0.7)
    assert found.value == texts.count("x")
    assert found.high - found.value == pytest.approx(half, rel=0.4)
    assert found.value - found.low == pytest.approx(found.high - found.value)


def test_most_intervals_hold_the_truth() -> None:
    held = 0
    for seed in range(100):
        values = np.random.default_rng(seed).exponential(1.0, 120)
        found = mean_measure("x", "x", values).interval()
        held += found.low <= 1.0 <= found.high
    assert 86 <= held <= 100  # 95 but for the skewness and the draw


def test_differences_are_paired_by_photo() -> None:
    """Photos differ far more than the captioners: only pairing shows it."""
    random = np.random.default_rng(3)
    photos = random.normal(50, 30, 300)
    first = mean_measure("x", "x", photos + 1 + random.normal(0, 0.5, 300))
    second = mean_measure("x", "x", photos)
    found = first.difference(second)
    assert found.value == pytest.approx(1, abs=0.1)
    assert found.excludes_zero
    assert found.high - found.low < 0.2
    alone = first.interval()
    assert alone.high - alone.low > 5


def test_a_captioner_does_not_differ_from_itself() -> None:
    measure = mean_measure("x", "x", np.arange(50.0))
    assert measure.difference(measure) == Interval(0, 0, 0)
    texts = SetMeasure("x", "x", tuple(map(str, range(50))), lambda some: float(len(set(some))))
    assert texts.difference(texts) == Interval(0, 0, 0)
    assert not texts.difference(texts).excludes_zero


def test_intervals_are_the_same_in_every_run() -> None:
    values = np.random.default_rng(4).random(60)
    assert mean_measure("x", "x", values).interval() == mean_measure("y", "y", values).interval()


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40))
def test_a_value_lies_within_what_was_measured(values: list[float]) -> None:
    found = mean_measure("x", "x", values).interval()
    slack = 1e-6 * (1 + max(map(abs, values)))
    assert min(values) - slack <= found.low <= found.high <= max(values) + slack
    assert found.value == pytest.approx(float(np.mean(values)), abs=slack)


def test_a_whole_of_nothing_is_zero() -> None:
    measure = SumMeasure("x", "x", np.zeros((5, 2)), mean_measure("m", "m", [0.0]).value)
    assert measure.interval() == Interval(0, 0, 0)
