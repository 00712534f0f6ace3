"""Reliability: errors by hand, and what holds of any confidences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanocap.measure.metrics.evaluation import evaluate
from nanocap.measure.metrics.reliability import Reliability, reliability


def of(confidences: list[float], supported: list[int], mentioned: list[int]) -> Reliability:
    return Reliability(*(np.array(x, float) for x in (confidences, supported, mentioned)))


def figures(found: Reliability) -> dict[str, float]:
    return {one.key: one.interval().value for one in found.measures()}


def test_by_hand() -> None:
    # two of confidence 0.95, of which one holds; two of 0.15, of which none does
    found = of([0.95, 0.95, 0.15, 0.15], [2, 1, 0, 1], [2, 2, 1, 2])
    assert [(b.confidence, b.share, b.photos) for b in found.bins()] == [
        (pytest.approx(0.15), 0.0, 2),
        (pytest.approx(0.95), 0.5, 2),
    ]
    # wrong objects: 1 of 4 among the surer half, 3 of 7 among all
    assert figures(found) == pytest.approx(
        {"calibration": 0.5 * 0.15 + 0.5 * 0.45, "surer_half": (1 / 4) / (3 / 7)}
    )
    assert found.curve() == [
        (25.0, 0.0),
        (50.0, 25.0),
        (75.0, pytest.approx(40.0)),
        (100.0, pytest.approx(300 / 7)),
    ]


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3), st.integers(0, 3)), min_size=2))
def test_bounds(rows: list[tuple[float, int, int]]) -> None:
    found = of(
        [one[0] for one in rows],
        [min(one[1:]) for one in rows],
        [max(one[1:]) for one in rows],
    )
    assert sum(one.photos for one in found.bins()) == len(rows)
    assert 0 <= figures(found)["calibration"] <= 1
    coverage, risk = zip(*found.curve(), strict=True)
    assert coverage[-1] == 100
    assert all(0 <= one <= 100 for one in risk)


def test_a_constant_that_is_the_share_is_calibrated_and_sorts_nothing() -> None:
    found = of([0.5] * 10, [1, 0] * 5, [1] * 10)
    assert figures(found) == {"calibration": 0.0, "surer_half": pytest.approx(0.4 / 0.5)}


def test_captions_are_held_against_their_references() -> None:
    captions = {"a": "A dog on the grass.", "b": "A dog and a cat."}
    people = {"a": ["a dog runs over grass"], "b": ["a cat sleeps"]}
    found = reliability({"b": 0.2, "a": 0.9}, captions, people)
    assert found.confidences.tolist() == [0.9, 0.2]
    assert found.holds.tolist() == [1.0, 0.0]
    whole = evaluate(captions, people, scorers=(), confidences={"a": 0.9, "b": 0.2})
    assert whole.to_dict()["figures"]["calibration"]["value"] == pytest.approx(0.15)
    without = evaluate(captions, people, scorers=())
    assert "calibration" not in without.to_dict()["figures"]
