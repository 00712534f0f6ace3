"""Variety of captions, by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanocap.measure.metrics.variety import repeats_itself, variety_measures, words

TEXTS = ["A dog runs.", "a dog runs", "A dog, a dog!", "The boy's cat sits"]


def figures(texts: Sequence[str], seen: list[str] | None = None) -> dict[str, float]:
    return {one.key: one.interval().value for one in variety_measures(texts, seen)}


def test_by_hand() -> None:
    found = figures(TEXTS)
    assert found["distinct"] == 3  # case and punctuation are no difference
    assert found["vocabulary"] == 7  # a dog runs the boy's cat sits
    assert found["words"] == pytest.approx(14 / 4)
    assert found["distinct_1"] == pytest.approx(100 * 7 / 14)
    assert found["distinct_2"] == pytest.approx(100 * 6 / 10)  # a-dog four times, dog-runs twice
    assert found["repetition"] == 25
    assert "seen" not in found


def test_captions_that_training_held() -> None:
    assert figures(TEXTS, ["A DOG RUNS", "another"])["seen"] == 50
    assert figures(TEXTS, [])["seen"] == 0


@pytest.mark.parametrize(
    ("text", "repeats"),
    [
        ("a dog and a cat", False),  # a word may come twice
        ("a dog and a dog", True),
        ("a dog dog", True),
        ("", False),
        ("dog", False),
    ],
)
def test_repetition(text: str, repeats: bool) -> None:
    assert repeats_itself(text) is repeats


def test_words_of_other_scripts_are_words() -> None:
    assert words("Ein Hund läuft, 2 собаки_идут!") == [
        "ein",
        "hund",
        "läuft",
        "2",
        "собаки",
        "идут",
    ]


@given(st.lists(st.text(), min_size=1, max_size=8))
def test_any_text_has_figures_in_their_range(texts: list[str]) -> None:
    found = figures(texts, texts)
    assert 1 <= found["distinct"] <= len(texts)
    assert found["seen"] == pytest.approx(100)
    for key in ("distinct_1", "distinct_2", "distinct_3", "repetition"):
        assert 0 <= found[key] <= 100
