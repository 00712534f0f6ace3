"""The tokenizer: byte-pair pieces of lower-case caption text, and the control tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from tokenizers.decoders import Metaspace

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
