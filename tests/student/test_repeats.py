"""No word and no phrase twice in a row."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nanocap import Captioner
from nanocap.student.layers import NEVER
from nanocap.student.repeats import WINDOW, RepeatRule

from .oracle import Repeats

PIECES = ["<pad>", "<end>", *"▁a ▁red ▁blue ▁and ▁or ▁ra ccoon bbit s ▁by ▁side ▁cat".split()]
RULE, ORACLE = RepeatRule(PIECES), Repeats.of(PIECES)


def out_of_reach(pasts: list[list[int]]) -> list[set[int]]:
    """The ids that the rule takes out of reach behind each of these."""
    windows = [([0] * WINDOW + past)[-WINDOW:] for past in pasts]
    scores = RULE(torch.zeros(1, len(pasts), len(PIECES)), torch.tensor([windows]))[0]
    assert ((scores == 0) | (scores <= NEVER)).all(), "the others keep their scores"
    return [set(torch.nonzero(each)[:, 0].tolist()) for each in scores]


def barred(text: str) -> set[str]:
    """The pieces that may not follow a list of pieces."""
    (ids,) = out_of_reach([[PIECES.index(piece) for piece in text.split()]])
    return {PIECES[i] for i in ids}


@given(st.lists(st.lists(st.integers(2, 6), max_size=2 * WINDOW), min_size=1, max_size=5))
def test_the_rule_equals_the_same_in_loops(pasts: list[list[int]]) -> None:
    """Of few pieces, which repeat all the time, in captions longer than what it looks at."""
    assert out_of_reach(pasts) == [ORACLE.barred(past) for past in pasts]


@pytest.mark.parametrize(
    ("said", "never"),
    [
        ("", ""),
        ("▁red", "▁red"),
        ("▁a ▁red ▁and", "▁red ▁and"),  # "red and red"
        ("▁blue ▁or", "▁blue ▁or"),
        ("▁side ▁by", "▁by"),  # "side by side" is English
        ("▁ra ccoon ▁ra", "▁ra ccoon"),  # a rabbit may follow
        ("▁ra ccoon ▁and ▁ra", "▁ra ccoon"),
        ("▁red ▁cat ▁red", "▁red ▁cat"),
        ("▁a ▁red ▁cat ▁and ▁a ▁red", "▁red ▁cat"),
        ("▁cat s", ""),  # "cats cat"
        ("s s", ""),  # the inside of a word is the model's affair
    ],
)
def test_what_may_not_follow(said: str, never: str) -> None:
    assert barred(said) == set(never.split())


def words(pieces: list[str]) -> list[str]:
    return "".join(pieces).replace("▁", " ").split()


@given(st.lists(st.sampled_from(PIECES[2:]), max_size=12))
def test_what_obeys_says_no_word_twice(pieces: list[str]) -> None:
    said: list[str] = []
    for piece in pieces:
        if piece not in barred(" ".join(said)):
            said.append(piece)
    # a word of one piece; of several, its last piece could be missing from the second
    whole = [piece for piece in said if piece.startswith("▁")]
    if whole == said:
        spoken = words(said)
        assert all(first != second for first, second in itertools.pairwise(spoken))
        for first, between, second in zip(spoken, spoken[1:], spoken[2:], strict=False):
            assert first != second or between not in ("and", "or")


def odd_pictures() -> list[Image.Image]:
    """Stripes, checks, plain colours and noise, of which the model knows nothing."""
    rng = np.random.default_rng(5)
    pictures = []
    for width in (3, 8, 20, 60):
        for low, high in rng.integers(0, 256, (3, 2, 3)):
            stripes = np.where((np.arange(96) // width % 2)[:, None, None], low, high)
            pictures.append(np.broadcast_to(stripes, (96, 96, 3)))
    pictures += [rng.integers(0, 256, (n, n, 3)) for n in (2, 3, 5, 9, 40)]
    return [Image.fromarray(picture.astype(np.uint8)) for picture in pictures]


@pytest.mark.parametrize("options", [{}, {"beams": 1, "length": "long"}])
def test_the_shipped_model_never_stammers(options: dict[str, object]) -> None:
    captioner = Captioner()
    for caption in captioner(odd_pictures(), **options):  # type: ignore[call-overload]
        said = caption.text.lower().rstrip(".").split()
        assert all(a != b for a, b in itertools.pairwise(said)), caption.text
        for a, between, b in zip(said, said[1:], said[2:], strict=False):
            assert a != b or between not in ("and", "or"), caption.text
