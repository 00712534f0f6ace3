"""Which piece would say a word or a phrase twice in a row: "red red", "blue and blue".

A search never takes these. Weak students, and good ones on odd pictures, run into such loops.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nanocap.bundle.vocabulary import WORD_MARK

JOINING = ("and", "or")
# How a phrase may not come again: its length in pieces, and the joining pieces in between.
WAYS = (*((length, 0) for length in range(1, 7)), *((length, 1) for length in range(1, 5)))


@dataclass(frozen=True)
class Repeats:
    """The rule for one vocabulary.

    Attributes:
        starts: of each piece, whether it starts a word; a phrase does.
        joins: ids of joining words.
    """

    starts: tuple[bool, ...]
    joins: frozenset[int]

    @classmethod
    def of(cls, pieces: Sequence[str]) -> Repeats:
        """The rule for the pieces of a vocabulary, in the order of their ids."""
        joining = {f"{WORD_MARK}{word}" for word in JOINING}
        return cls(
            starts=tuple(piece.startswith(WORD_MARK) for piece in pieces),
            joins=frozenset(i for i, piece in enumerate(pieces) if piece in joining),
        )

    def barred(self, ids: Sequence[int]) -> set[int]:
        """The ids that may not follow `ids`: each would be the last piece of a repetition."""
        found, count = set(), len(ids)
        for length, between in WAYS:
            first = count - 2 * length + 1 - between  # where the phrase begins that would return
            last = first + length - 1
            if (
                first >= 0
                and self.starts[ids[first]]
                and (not between or ids[last + 1] in self.joins)
                and ids[first:last] == ids[last + 1 + between :]
            ):
                found.add(ids[last])
        return found
