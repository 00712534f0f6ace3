"""Worn phrases, by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanocap.measure.metrics.evaluation import evaluate
from nanocap.measure.metrics.phrases import phrases, worn_measure, worn_phrases

SAID = {
    "a": "A cat sitting on top of a table",
    "b": "A dog on top of a hill",
    "c": "Two birds on top of on top of a tree",
    "d": "A man rides a horse",
}
PEOPLE = {
    "a": ["a cat on a table", "a cat lies on top of a table"],
    "b": ["a dog runs"],
    "c": ["birds in a tree"],
    "d": ["a man rides a horse"],
}


def test_the_share_of_captions_that_have_a_phrase() -> None:
    worst = worn_phrases(SAID, PEOPLE, count=2)
    assert [one.text for one in worst] == ["on top of", "top of a"]
    # three of four captions, one of five of people's; twice in one caption counts once
    assert worst[0].ours == pytest.approx(75)
    assert worst[0].people == pytest.approx(20)
    assert worst[0].excess == pytest.approx(55)


def test_the_measure_is_the_excess_of_the_worst() -> None:
    measure = worn_measure(SAID, PEOPLE)
    assert measure.interval().value == pytest.approx(55)
    assert measure.better == -1
    plain = {key: texts[0] for key, texts in PEOPLE.items()}
    assert measure.difference(worn_measure(plain, PEOPLE)).value > 0


def test_words_of_people_are_not_worn() -> None:
    same = {key: texts[0] for key, texts in PEOPLE.items()}
    alone = {key: [text] for key, text in same.items()}
    assert worn_measure(same, alone).interval().value == 0


def test_captions_too_short_for_a_phrase() -> None:
    assert worn_measure({"a": "a dog"}, {"a": ["a dog runs"]}).interval().value == 0
    assert worn_phrases({"a": ""}, {"a": ["a dog runs"]}) == []


def test_an_evaluation_names_them() -> None:
    found = evaluate(SAID, PEOPLE, scorers=()).to_dict()
    assert found["figures"]["worn"]["value"] == pytest.approx(55)
    assert found["worn_phrases"][0] == {"phrase": "on top of", "percent": 75.0, "people": 20.0}


@given(st.lists(st.sampled_from("abc"), max_size=8))
def test_phrases_are_runs_of_three_words(tokens: list[str]) -> None:
    found = phrases(" ".join(tokens))
    assert len(found) <= max(0, len(tokens) - 2)
    assert all(len(one.split()) == 3 for one in found)
