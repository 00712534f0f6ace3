"""The tokenizer: byte-pair pieces of lower-case caption text, and the control tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from tokenizers.decoders import Metaspace

from nanocap.bundle.vocabulary import WORD_MARK
from nanocap.student.controls import END, SPECIALS

SHORT_WORDS = 9  # a caption of at most so many words is short
#: What is not a word of a caption, as patterns of lower-case text, and what comes in its place.
REPLACED = (
    ("’", "'"),
    ("&", " and "),
    (r"[^\w\s'-]|_", " "),
    (r"(?<!\w)['-]+|['-]+(?!\w)", " "),
)


def normalize(caption: str) -> str:
    """Lower case, words only: what CIDEr's tokenizer would leave, so that no effort is wasted."""
    text = caption.lower()
    for pattern, by in REPLACED:
        text = re.sub(pattern, by, text)
    return " ".join(text.split())


def train_tokenizer(captions: Iterable[str], vocabulary: int) -> Tokenizer:
    """Byte-pair encoding of `vocabulary` pieces over normalized captions, controls first."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=list(SPECIALS), min_frequency=2, show_progress=False
    )
    tokenizer.train_from_iterator(captions, trainer)
    return tokenizer


def with_words(tokenizer: Tokenizer, words: Iterable[str]) -> Tokenizer:
    """The tokenizer with a piece for each of these words; the pieces that it has keep their ids."""
    table = json.loads(tokenizer.to_str())
    vocabulary = table["model"]["vocab"]
    for word in words:
        vocabulary.setdefault(f"{WORD_MARK}{word}", len(vocabulary))
    table["model"]["ignore_merges"] = True  # nothing merges to a piece that was only added
    return Tokenizer.from_str(json.dumps(table))


def length_of(caption: str) -> str:
    """The length bucket of a normalized caption."""
    return "short" if len(caption.split()) <= SHORT_WORDS else "long"


def encode(tokenizer: Tokenizer, captions: Sequence[str], max_pieces: int) -> list[list[int]]:
    """Pieces of each normalized caption and the end token; a caption that is too long is cut."""
    encodings = tokenizer.encode_batch(list(captions))
    return [
        [*encoding.ids, END] if len(encoding.ids) < max_pieces else encoding.ids[:max_pieces]
        for encoding in encodings
    ]
