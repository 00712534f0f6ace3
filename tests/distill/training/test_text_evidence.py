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
from nanocap.distill.training.text_evidence import Draft, Found, TextEvidence
from nanocap.student.controls import END, PREFIX
from nanocap.student.evidence import NO_PHOTO

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


def drafts(corpus: Corpus, found: Found, swapped: float, count: int = 60) -> list[Draft]:
    rows = TextEvidence(corpus, found, 16, swapped)
    return [rows.draw(np.random.default_rng(seed)) for seed in range(count)]


def test_texts_of_photos_that_were_set_aside_are_left_out(corpus: Corpus) -> None:
    aside = {text for row in corpus.rows if row.aside for text in row.captions}
    assert not aside & set(corpus.texts)
    assert {"a dog chases a ball", "a dog running", "the cat sleeps"} <= set(corpus.texts)


def test_texts_have_evidence_likeliest_first(corpus: Corpus, found: Found) -> None:
    for draft in drafts(corpus, found, swapped=0.0):
        assert draft.text in corpus.texts
        certainty = [*draft.evidence.values()]
        assert len(certainty) == EVIDENCE
        assert certainty == sorted(certainty, reverse=True)


def test_rows_of_texts_and_of_photos(corpus: Corpus, found: Found) -> None:
    photos = [i for i in corpus.training() if "square" in corpus.rows[i].captions[0]][:5]
    rows, told = TextEvidence(corpus, found, 16, 0.0).rows(4, 3, photos, np.random.default_rng(0))
    assert len(rows) == len(told.evidence) == len(told.certainty) == 7
    assert told.photo[:4].tolist() == [NO_PHOTO] * 4
    assert len(set(told.photo[4:].tolist())) == 3
    for row, place in zip(rows[4:], told.photo[4:].tolist(), strict=True):
        assert row[-1] == END
        text = corpus.tokenizer.decode(row[PREFIX:]).strip()
        said = corpus.rows[photos[place]].captions
        assert text not in said
        assert any(len(set(text.split()) - set(one.split())) <= 2 for one in said)  # noun, article


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
    for draft in drafts(corpus, found, swapped=1.0):
        if draft.text in corpus.texts:
            continue
        swapped += 1
        said = corpus.concepts.mentioned(draft.text)
        sure = [concept for concept in said if draft.evidence.get(concept, -9.0) > -0.75]
        assert sure
        assert len(draft.evidence) == EVIDENCE
        assert " a apple" not in f" {draft.text}"
    assert swapped > 10


def test_a_word_that_gave_way_is_not_told(corpus: Corpus, found: Found) -> None:
    assert corpus.concepts is not None
    square = corpus.concepts.number["square"]
    rows = TextEvidence(corpus, found, 16, 0.0)
    photo = next(i for i in corpus.training() if "square" in corpus.rows[i].captions[0])
    for seed in range(20):
        draft = rows.renamed(photo, np.random.default_rng(seed))
        assert draft is not None
        assert "square" not in draft.text.split()
        assert square not in draft.evidence


def test_the_same_randomness_draws_the_same(corpus: Corpus, found: Found) -> None:
    assert drafts(corpus, found, 0.5, 10) == drafts(corpus, found, 0.5, 10)


def test_which_words_the_captions_of_a_photo_have(corpus: Corpus) -> None:
    assert corpus.concepts is not None
    table = NamingTable(corpus, corpus.concepts)
    learned = corpus.concepts.words[: corpus.concepts.learned]
    for index, row in enumerate(corpus.rows):
        said = {word for word, there in zip(learned, table.said[index], strict=True) if there}
        assert said == {word for word in learned if word in " ".join(row.captions).split()}
