"""Alternative text from captions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanocap.runtime.alt.wording import alternative


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A cat on a bed.", "A cat on a bed."),
        ("A photo of a cat on a bed.", "A cat on a bed."),
        ("A black and white photograph of a train.", "A train."),
        ("A picture frame on a wall.", "A picture frame on a wall."),
        ("A young man is riding a wave.", "A person is riding a wave."),
        ("An old woman and her dog.", "A person and their dog."),
        ("A man and a woman are sitting.", "Two people are sitting."),
        ("Two young asian men in suits.", "Two people in suits."),
        ("A group of boys play football.", "A group of people play football."),
        ("A little girl in a man's coat.", "A person in a person's coat."),
        ("A baby elephant with a boy.", "A baby elephant with a person."),
        ("A baby is asleep.", "A person is asleep."),
        ("A black dog and a white cat.", "A black dog and a white cat."),
        ("A black man and a white cat.", "A person and a white cat."),
        ("A mango and a boycott.", "A mango and a boycott."),
        ("An elderly person on a bench.", "A person on a bench."),
        ("A snowman.", "A snowman."),
    ],
)
def test_people_are_persons(caption: str, words: str) -> None:
    assert alternative(caption) == words


def test_as_seen() -> None:
    assert alternative("A young man  in a hat.", "as-seen") == "A young man in a hat."


@given(st.text("amn wobygirlf.,'s", max_size=60))
def test_once_is_enough(caption: str) -> None:
    once = alternative(caption)
    assert alternative(once) == once
