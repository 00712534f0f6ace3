"""Pieces of text and control tokens."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from nanocap.distill.data.corpus import Corpus
from nanocap.distill.data.tokenizer import encode, length_of, normalize, train_tokenizer
from nanocap.student.controls import END, LENGTH, PAD, QUALITY, SPECIALS, UNKNOWN


@pytest.fixture(scope="module")
def tokenizer(corpus: Corpus) -> Tokenizer:
    return corpus.tokenizer


@given(st.text())
@example("'-a-' b--c 'd' _e_ f\u2028g")
@example("it's a T-shirt – isn’t it?")
def test_normalizing_twice_is_once(text: str) -> None:
    once = normalize(text)
    assert normalize(once) == once


@given(st.text(st.characters(codec="ascii")))
def test_normalized_text_is_words(text: str) -> None:
    assert re.fullmatch(r"([\w'-]+( [\w'-]+)*)?", normalize(text), re.ASCII)
    assert normalize(text) == normalize(text).lower()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A man's T-shirt, in RED.", "a man's t-shirt in red"),
        ("  two  dogs\nrun ... fast!!", "two dogs run fast"),
        ("'A 'quoted' word' - and a dash", "a quoted word and a dash"),
        ("salt & pepper", "salt and pepper"),
        ("isn’t", "isn't"),
        ("a_b", "a b"),
        ("?!", ""),
    ],
)
def test_normalize(text: str, expected: str) -> None:
    assert normalize(text) == expected


def test_controls_have_the_first_ids(tokenizer: Tokenizer) -> None:
    assert [tokenizer.token_to_id(name) for name in SPECIALS] == list(range(9))
    assert (PAD, END, UNKNOWN) == (0, 1, 2)
    assert QUALITY == {"high": 3, "medium": 4, "low": 5}
    assert LENGTH == {"any": 6, "short": 7, "long": 8}
    assert tokenizer.get_vocab_size() == 80


def test_every_training_caption_comes_back(corpus: Corpus) -> None:
    captions = [caption for row in corpus.rows for caption in row.captions]
    for ids, caption in zip(encode(corpus.tokenizer, captions, 100), captions, strict=True):
        assert ids[-1] == END
        assert not set(ids[:-1]) & set(range(9))
        assert corpus.tokenizer.decode(ids) == caption


@given(
    st.lists(st.sampled_from("a red green circle square on there background".split()), min_size=1)
)
def test_known_words_come_back(tokenizer: Tokenizer, words: list[str]) -> None:
    text = " ".join(words)
    [ids] = encode(tokenizer, [text], 1000)
    assert tokenizer.decode(ids) == text


def test_pieces_say_where_words_start(tokenizer: Tokenizer) -> None:
    """The runtime turns ids into text so, without the library."""
    text = "there is a red circle before green"
    pieces = tokenizer.encode(text).tokens
    assert "".join(pieces).replace("\u2581", " ").strip() == text


def test_a_character_never_seen_is_unknown(tokenizer: Tokenizer) -> None:
    [ids] = encode(tokenizer, ["ж"], 10)
    assert UNKNOWN in ids


@pytest.mark.parametrize("most", [1, 4, 5, 6, 50])
def test_too_long_captions_are_cut(tokenizer: Tokenizer, most: int) -> None:
    text = "a red circle on a blue background"
    whole = tokenizer.encode(text).ids
    [ids] = encode(tokenizer, [text], most)
    assert len(ids) <= most
    if len(whole) < most:
        assert ids == [*whole, END]
    else:
        assert ids == whole[:most]  # a caption that goes on must not teach to stop


def test_lengths() -> None:
    assert length_of("a b c d e f g h i") == "short"
    assert length_of("a b c d e f g h i j") == "long"


def test_the_same_captions_give_the_same_tokenizer(corpus: Corpus) -> None:
    captions = [caption for row in corpus.rows for caption in row.captions]
    assert train_tokenizer(captions, 60).to_str() == train_tokenizer(captions, 60).to_str()
