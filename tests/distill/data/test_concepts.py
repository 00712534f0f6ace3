"""Words of a concept head, and the pieces that they become."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from nanocap.distill.data.concepts import (
    LEAST,
    ConceptWords,
    choose_concepts,
    imagenet_words,
)
from nanocap.distill.data.tokenizer import train_tokenizer, with_words

CAPTIONS = [
    *["two dogs run on a beach"] * (LEAST + 2),
    *["a man rides a horse"] * LEAST,
    *["a turtle swims"] * (LEAST - 1),
]


@pytest.fixture(scope="module")
def concepts() -> ConceptWords:
    return choose_concepts(CAPTIONS, 50)


def test_the_nouns_that_most_captions_have_are_learned(concepts: ConceptWords) -> None:
    assert sorted(concepts.words[: concepts.learned]) == ["beach", "dog", "horse", "man"]
    assert choose_concepts(CAPTIONS, 2).learned == 2
    assert sorted(choose_concepts(CAPTIONS, 2).words[:2]) == ["beach", "dog"]


def test_words_of_imagenet_stand_once(concepts: ConceptWords) -> None:
    assert len(set(concepts.words)) == len(concepts.words)
    assert set(imagenet_words()) <= set(concepts.words)
    # rarely said, and known all the same; said and known
    assert concepts.classes[concepts.number["turtle"]] == (33, 34, 35, 36, 37)
    assert concepts.classes[concepts.number["horse"]] == (339, 603)
    assert concepts.classes[concepts.number["man"]] == ()


def test_every_class_number_is_one_of_imagenets() -> None:
    numbers = [number for numbers in imagenet_words().values() for number in numbers]
    assert min(numbers) == 0
    assert max(numbers) == 999
    assert all(word == word.lower() and word.isalpha() for word in imagenet_words())


def test_a_caption_mentions_concepts_in_any_form(concepts: ConceptWords) -> None:
    found = concepts.mentioned("two men and their dogs near a turtle")
    assert {concepts.words[number]: place for number, place in found.items()} == {
        "man": 1,
        "dog": 4,
        "turtle": 7,
    }


def test_it_is_read_as_it_was_written(concepts: ConceptWords, tmp_path: Path) -> None:
    concepts.save(tmp_path / "concepts.json")
    assert ConceptWords.load(tmp_path / "concepts.json") == concepts


def test_every_word_is_one_piece_and_others_keep_theirs() -> None:
    plain = train_tokenizer(CAPTIONS, 60)
    grown = with_words(plain, ["tortoise", "dog", "kayak"])
    before = plain.get_vocab()
    assert {piece: grown.get_vocab()[piece] for piece in before} == before
    for word in ("tortoise", "dog", "kayak"):
        assert grown.encode(word).tokens == [f"\u2581{word}"]
    assert grown.decode(grown.encode("a tortoise near two dogs").ids) == "a tortoise near two dogs"
    again = Tokenizer.from_str(grown.to_str())
    assert again.encode("a kayak").ids == grown.encode("a kayak").ids
