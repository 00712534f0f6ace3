"""Ways of choosing a range, against what their papers say, written out in plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanocap.convert.quantization.ranges import (
    BINS,
    FAINT,
    LEVELS,
    METHODS,
    SHARES,
    Histogram,
    entropy,
    percentile,
)


def histogram(values: np.ndarray) -> Histogram:
    low, high = float(values.min()), float(values.max())
    return Histogram(np.histogram(values, BINS, (low, high))[0], low, high)


def drawn(seed: int, kind: str) -> Histogram:
    random = np.random.default_rng(seed)
    values = {
        "bell": lambda: random.normal(0.3, 1, 20_000),
        "tail": lambda: random.standard_t(3, 20_000),
        "relu": lambda: np.maximum(random.normal(0, 2, 20_000), 0),
    }[kind]()
    return histogram(values)


def lost(seen: Histogram, share: float) -> float:
    """Nats that 256 steps of this share of the range do not know of the distribution."""
    low, high = seen.low * share, seen.high * share
    places = [i for i, centre in enumerate(seen.centres) if low <= centre <= high]
    first, last = places[0], places[-1]
    reference = {i: float(seen.counts[i]) for i in places}
    reference[first] += float(seen.counts[:first].sum())
    reference[last] += float(seen.counts[last + 1 :].sum())
    steps: dict[int, list[int]] = {}
    for i in places:
        steps.setdefault(round((seen.centres[i] - low) / (high - low) * LEVELS), []).append(i)
    known = dict.fromkeys(places, FAINT)
    for members in steps.values():
        filled = [i for i in members if seen.counts[i]]
        for i in filled:
            known[i] = sum(float(seen.counts[j]) for j in filled) / len(filled)
    total, told = sum(reference.values()), float(seen.counts[first : last + 1].sum())
    divergence = 0.0
    for i in places:
        if reference[i]:
            p, q = reference[i] / total, known[i] / told
            divergence += p * math.log(p / q)
    return divergence


@pytest.mark.parametrize("kind", ["bell", "tail", "relu"])
def test_entropy_keeps_what_tells_most(kind: str) -> None:
    seen = drawn(0, kind)
    expected = min(SHARES, key=lambda share: lost(seen, share))
    assert entropy(seen) == (seen.low * expected, seen.high * expected)
    assert (expected < 0.9) == (kind != "bell")


@pytest.mark.parametrize("kind", ["bell", "tail", "relu"])
def test_percentile_is_numpys_to_a_bin(kind: str) -> None:
    random = np.random.default_rng(1)
    values = random.standard_t(3, 50_000) if kind == "tail" else random.normal(0, 1, 50_000)
    values = np.maximum(values, 0) if kind == "relu" else values
    seen = histogram(values)
    expected = np.percentile(values, [0.005, 99.995], method="inverted_cdf")
    np.testing.assert_allclose(percentile(seen), expected, atol=(seen.high - seen.low) / BINS)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(["bell", "tail", "relu"]))
def test_every_range_lies_in_what_was_seen(seed: int, kind: str) -> None:
    seen = drawn(seed, kind)
    for method in METHODS.values():
        low, high = method(seen)
        assert seen.low <= low <= 0 <= high <= seen.high
        assert low < high
        assert method(seen) == (low, high)


def test_a_value_that_never_changes_keeps_its_range() -> None:
    counts = np.zeros(BINS, np.int64)
    counts[0] = 7
    for method in METHODS.values():
        low, high = method(Histogram(counts, 0.0, 0.0))
        assert abs(low) + abs(high) == 0
