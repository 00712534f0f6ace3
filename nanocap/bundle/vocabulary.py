"""From ids to text: a table of pieces, and how a sentence is presented."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nanocap.bundle.fields import Fields, parse_object
from nanocap.errors import BundleError

WORD_MARK = "\u2581"  # stands where a word starts (the Metaspace pre-tokenizer)


@dataclass(frozen=True)
class Vocabulary:
    """The pieces by id, and which ids are special, that is, no text.

    Attributes:
        pieces: `pieces[id]` is the piece; an id that the file leaves out is "".
        special: ids of control, padding, end and unknown tokens.
    """

    pieces: tuple[str, ...]
    special: frozenset[int]

    @classmethod
    def from_tokenizer(cls, data: bytes, size: int, where: str = "tokenizer.json") -> Vocabulary:
        """The vocabulary of a BPE tokenizer with Metaspace, as `tokenizers` saves it.

        (The package `tokenizers` would do it as well, but brings a network client and 45 MB.)

        Args:
            data: the file's bytes.
            size: how many ids the model knows; the file must name no other.

        Raises:
            BundleError: it is not such a file.
        """
        top = parse_object(data, where)
        pieces = [""] * size
        model = top.inner("model").inner("vocab")
        for piece in model.values:
            pieces[model.whole(piece, 0, size - 1)] = piece
        special = set()
        entries: Iterable[Fields] = (
            top.objects("added_tokens") if top.values.get("added_tokens") else ()
        )
        for entry in entries:
            index = entry.whole("id", 0, size - 1)
            pieces[index] = entry.text("content")
            if entry.values.get("special") is True:
                special.add(index)
        if not any(pieces):
            raise BundleError(f"{where}: holds no pieces; get or build the bundle again")
        return cls(tuple(pieces), frozenset(special))

    def text(self, ids: Iterable[int]) -> str:
        """The plain text of `ids`, special ones left out, no space at either end."""
        pieces = (self.pieces[i] for i in ids if i not in self.special)
        return "".join(pieces).replace(WORD_MARK, " ").strip()


@dataclass(frozen=True)
class Presentation:
    """How plain text becomes the sentence that people read.

    Attributes:
        capital: whether its first letter is a capital.
        stop: what is put behind it, unless it ends with one of `ends`.
    """

    capital: bool = True
    stop: str = "."
    ends: tuple[str, ...] = (".", "!", "?")

    def sentence(self, text: str) -> str:
        """The sentence; nothing stays nothing."""
        return self.open(text) + ("" if not text or text.endswith(self.ends) else self.stop)

    def open(self, text: str) -> str:
        """The sentence before it is closed, while more words may come."""
        return text[:1].upper() + text[1:] if self.capital else text
