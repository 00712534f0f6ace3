"""Ids become the same text as with `tokenizers`, and hostile files become one line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from nanocap.bundle.vocabulary import Presentation, Vocabulary
from nanocap.errors import BundleError

SPECIAL = ["<pad>", "<end>", "<unk>", "<high>", "<short>"]
TEXT = [
    "a brown dog runs across the grass",
    "two dogs are running along the beach at sunset",
    "a child in a red coat is holding a cat's tail",
    "the man's half-open umbrella, seen from above",
    "ein größeres café neben dem fluß",
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.decoder = decoders.Metaspace()
    trained.train_from_iterator(
        TEXT, trainers.BpeTrainer(vocab_size=120, special_tokens=SPECIAL, show_progress=False)
    )
    return trained


@pytest.fixture(scope="module")
def vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    return Vocabulary.from_tokenizer(tokenizer.to_str().encode(), tokenizer.get_vocab_size())


def test_pieces_and_special_ids(tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
    assert list(vocabulary.pieces) == [
        tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())
    ]
    assert vocabulary.special == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("text", TEXT)
def test_what_was_encoded_comes_back(
    text: str, tokenizer: Tokenizer, vocabulary: Vocabulary
) -> None:
    ids = tokenizer.encode(text).ids
    assert len(ids) > len(text.split()), "the pieces are smaller than words"
    assert vocabulary.text(ids) == text == tokenizer.decode(ids)
    assert vocabulary.text([3, 4, *ids, 1, 0, 0]) == text, "special ids are no text"


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.integers(0, 110), max_size=30))
def test_any_ids_decode_as_with_tokenizers(
    ids: list[int], tokenizer: Tokenizer, vocabulary: Vocabulary
) -> None:
    assert vocabulary.text(ids) == tokenizer.decode(ids).strip()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a dog runs", "A dog runs."),
        ("a dog runs.", "A dog runs."),
        ("who is there?", "Who is there?"),
        ("éclairs on a plate", "Éclairs on a plate."),
        ("2 dogs", "2 dogs."),
        ("a", "A."),
        ("", ""),
    ],
)
def test_a_sentence_has_a_capital_and_a_full_stop(text: str, sentence: str) -> None:
    assert Presentation().sentence(text) == sentence


def tokenizer_file(**changes: Any) -> bytes:
    values = {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": [], **changes}
    return json.dumps(values).encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[]", "must be a JSON object"),
        (b'{"model": 1, "model": 2}', "a key appears twice"),
        (b'{"model": NaN}', "NaN"),
        (b"{}", "model must be an object, found nothing"),
        (tokenizer_file(model={"vocab": []}), "vocab must be an object"),
        (tokenizer_file(model={"vocab": {}}), "holds no pieces"),
        (tokenizer_file(model={"vocab": {"a": -1}}), "a must be a whole number from 0 to 1"),
        (tokenizer_file(model={"vocab": {"a": 2}}), "a must be a whole number from 0 to 1"),
        (tokenizer_file(model={"vocab": {"a": True}}), "a must be a whole number"),
        (tokenizer_file(model={"vocab": {"a": 0.0}}), "a must be a whole number"),
        (tokenizer_file(model={"vocab": {"line\nbreak": 9}}), "line\\nbreak must be"),
        (tokenizer_file(added_tokens={"id": 0}), "added_tokens must be a list of objects"),
        (tokenizer_file(added_tokens=[{"id": 9}]), "id must be a whole number from 0 to 1"),
        (tokenizer_file(added_tokens=[{"id": 0}]), "content must be a text"),
        (b'{"model": {"vocab": {"a": ' + b"9" * 5000 + b"}}}", "not valid JSON"),
    ],
)
def test_a_file_that_is_no_vocabulary(data: bytes, message: str) -> None:
    with pytest.raises(BundleError) as caught:
        Vocabulary.from_tokenizer(data, size=2, where="bundle x: tokenizer.json")
    assert message in str(caught.value)
    assert str(caught.value).startswith("bundle x: tokenizer.json")
    assert "\n" not in str(caught.value)


def test_an_id_without_a_piece_is_no_text() -> None:
    vocabulary = Vocabulary.from_tokenizer(tokenizer_file(), size=5)
    assert vocabulary.text([0, 4, 1]) == "ab"
