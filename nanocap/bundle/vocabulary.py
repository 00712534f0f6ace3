"""From ids to text, by the vocabulary in `tokenizer.json`.

Only this direction is needed at run time. The package `tokenizers` would do it as well, but brings
a network client and 45 MB; a test compares these lines with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nanocap.bundle.fields import Fields, parse_object
from nanocap.errors import BundleError

WORD_MARK = "\u2581"  # stands where a word starts (the Metaspace pre-tokenizer)
SENTENCE_ENDS = (".", "!", "?")


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
    def from_json(cls, data: bytes, size: int, where: str = "tokenizer.json") -> Vocabulary:
        """The vocabulary of a BPE tokenizer with Metaspace, as `tokenizers` saves it.

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

    def sentence(self, ids: Iterable[int]) -> str:
        """The text of `ids` presented: a capital first, a full stop last. Empty stays empty."""
        return present(self.text(ids))


def present(text: str) -> str:
    """`text` with a capital first letter and a full stop, unless it ends a sentence already."""
    if not text:
        return ""
    return text[0].upper() + text[1:] + ("" if text.endswith(SENTENCE_ENDS) else ".")
