"""Rows of texts without photos: what they are told is what the head would find."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nanocap.distill.data.corpus import Corpus, prepare
from nanocap.distill.recipes.recipe import load_recipe
from nanocap.distill.training.naming import NamingTable
from nanocap.distill.training.text_evidence import Found, TextEvidence
from nanocap.student.controls import END, PREFIX

EVIDENCE = 4


@pytest.fixture
def corpus(write_recipe: Any, drawn: Path, tmp_path: Path) -> Corpus:
    texts = [
        {"captions": ["a dog chases a ball", "A DOG, running!"]},
        {"captions": ["the cat sleeps"]},
        {"captions": ["A red circle on a green background."]},  # of a photo; perhaps one set aside
    ]
    lines = "".join(json.dumps(row) + "\n" for row in texts)
    (tmp_path / "text.jsonl").write_text(lines, encoding="utf-8")
    recipe = load_recipe(
        write_recipe(
            ('imagenet = ""', 'imagenet = "efficientnet-lite0"'),
            (
                "vocabulary = 80",
                f'vocabulary = 80\nconcepts = 5\ntext = ["{tmp_path / "text.jsonl"}"]',
            ),
        )
    )
    return prepare(recipe, drawn, tmp_path / "cache")


@pytest.fixture
def found(corpus: Corpus) -> Found:
    return finding(corpus, "square", "dog", "turtle", "bus")


def finding(corpus: Corpus, *words: str) -> Found:
    """A head that finds the same in every photo."""
    assert corpus.concepts is not None
    row = [corpus.concepts.number[word] for word in words]
    photos = corpus.training()
    sure = np.tile(np.float32([-0.1, -0.5, -1.0, -3.0]), (len(photos), 1))
    return Found(photos, np.tile(np.array(row), (len(photos), 1)), sure)


def drawn_rows(corpus: Corpus, found: Found, swapped: float, count: int = 60) -> list[Any]:
    rows = TextEvidence(corpus, found, 16, swapped)
    return [rows.draw(np.random.default_rng(seed)) for seed in range(count)]


def words_of(corpus: Corpus, row: list[int]) -> str:
    text: str = corpus.tokenizer.decode(row[PREFIX:])
    return text.strip()


def test_texts_of_photos_that_were_set_aside_are_left_out(corpus: Corpus) -> None:
    aside = {text for row in corpus.rows if row.aside for text in row.captions}
    assert not aside & set(corpus.texts)
    assert {"a dog chases a ball", "a dog running", "the cat sleeps"} <= set(corpus.texts)


def test_rows_are_texts_with_evidence_likeliest_first(corpus: Corpus, found: Found) -> None:
    for row, evidence, certainty in drawn_rows(corpus, found, swapped=0.0):
        assert words_of(corpus, row) in corpus.texts
        assert row[-1] == END
        assert len(evidence) == len(set(evidence)) == len(certainty) == EVIDENCE
        assert certainty == sorted(certainty, reverse=True)


def test_its_own_words_are_told_as_often_as_the_head_finds_them(
    corpus: Corpus, found: Found
) -> None:
    assert corpus.concepts is not None
    square, cat = (corpus.concepts.number[word] for word in ("square", "cat"))
    always = TextEvidence(corpus, found, 16, 0.0)
    never = TextEvidence(corpus, finding(corpus, "cup", "dog", "turtle", "bus"), 16, 0.0)
    assert always.rates[square] > 0.95
    assert never.rates[square] < 0.05
    assert always.rates[cat] == pytest.approx(always.rates[square], abs=0.05)  # said of no photo


def test_a_rare_word_takes_the_place_of_another_and_is_told(corpus: Corpus, found: Found) -> None:
    assert corpus.concepts is not None
    swapped = 0
    for row, evidence, certainty in drawn_rows(corpus, found, swapped=1.0):
        text = words_of(corpus, row)
        if text in corpus.texts:
            continue
        swapped += 1
        said = [corpus.concepts.words[c] for c in corpus.concepts.mentioned(text)]
        told = [corpus.tokenizer.id_to_token(i).strip("\u2581") for i in evidence]
        new = [word for word in said if word in told and certainty[told.index(word)] > -0.75]
        assert new, (text, told)
        assert " a apple" not in f" {text}"
    assert swapped > 10


def test_the_same_randomness_draws_the_same(corpus: Corpus, found: Found) -> None:
    assert drawn_rows(corpus, found, 0.5, 10) == drawn_rows(corpus, found, 0.5, 10)


def test_which_words_the_captions_of_a_photo_have(corpus: Corpus) -> None:
    assert corpus.concepts is not None
    table = NamingTable(corpus, corpus.concepts)
    learned = corpus.concepts.words[: corpus.concepts.learned]
    for index, row in enumerate(corpus.rows):
        said = {word for word, there in zip(learned, table.said[index], strict=True) if there}
        assert said == {word for word in learned if word in " ".join(row.captions).split()}
