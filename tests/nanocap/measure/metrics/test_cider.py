"""The reward against the field's own scorer."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocoevalcap.cider.cider import Cider as Reference

from nanocap.measure.metrics.cider import Cider

WORDS = "a the red blue dog cat runs sits on under grass table".split()

texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join)
photos = st.lists(st.tuples(texts, st.lists(texts, min_size=1, max_size=5)), min_size=2, max_size=8)


def theirs(captions: list[str], references: list[list[str]]) -> list[float]:
    """Scores of `pycocoevalcap` photo by photo."""
    _, scores = Reference().compute_score(
        dict(enumerate(references)), {key: [text] for key, text in enumerate(captions)}
    )
    return [float(score) for score in scores]


@settings(max_examples=60, deadline=None)
@given(photos)
def test_scores_are_those_of_pycocoevalcap(drawn: list[tuple[str, list[str]]]) -> None:
    captions, references = [text for text, _ in drawn], [texts for _, texts in drawn]
    cider = Cider(references)
    ours = [cider.score(c, r) for c, r in zip(captions, references, strict=True)]
    assert ours == pytest.approx(theirs(captions, references), abs=1e-6)


def test_a_realistic_set() -> None:
    generator = random.Random(0)
    references = [
        [" ".join(generator.choices(WORDS, k=generator.randint(4, 14))) for _ in range(5)]
        for _ in range(60)
    ]
    captions = [generator.choice(texts) for texts in references]
    captions[0], captions[1] = "", "words never heard before"
    cider = Cider(references)
    ours = [cider.score(c, r) for c, r in zip(captions, references, strict=True)]
    assert ours == pytest.approx(theirs(captions, references), abs=1e-6)
    assert ours[0] == ours[1] == 0.0
    assert min(ours[2:]) > 1.0


def test_a_score_is_the_same_when_asked_again() -> None:
    references = [["a red dog runs", "the dog runs"], ["a blue cat sits on grass"]]
    cider = Cider(references)
    first = cider.score("a red dog", references[0])
    cider.score("a blue cat", references[1])
    assert cider.score("a red dog", references[0]) == first > 0


def test_the_best_caption_is_a_reference() -> None:
    references = [["a red dog runs on grass"], ["a blue cat sits on the table"]]
    cider = Cider(references)
    assert cider.score("a red dog runs on grass", references[0]) == pytest.approx(10.0)
    assert cider.score("a red dog", references[0]) < 10.0
    assert cider.score("a blue cat sits on the table", references[0]) < 1.0
