"""A text cut into the fact parser's units, each with its role and its place in the text."""

from __future__ import annotations

from dataclasses import dataclass

from nanocap.measure.metrics.facts.roles import FUNCTION, Role, roles
from nanocap.measure.metrics.facts.words import TOKEN, Unit, units


@dataclass(frozen=True)
class Piece:
    """A word or phrase at `text[start:end]`."""

    unit: Unit
    role: Role
    start: int
    end: int
    head: bool = False  # a noun that no other noun follows

    @property
    def unknown(self) -> bool:
        """Whether it is a word of content that the lexicon lacks, such as a name."""
        return self.role is Role.OTHER and self.unit.text not in FUNCTION


def pieces(text: str) -> list[Piece]:
    """The pieces in order; marks that the parser skips lie between them.

    A text whose lower case has another length (some letters do) has none.
    """
    lowered = text.lower().replace("\u2019", "'")
    if len(lowered) != len(text):
        return []
    places = [found.span() for found in TOKEN.finditer(lowered)]
    found: list[Piece] = []
    parts = units(text)
    at = 0
    for unit, role in zip(parts, roles(parts), strict=True):
        last = at + unit.text.count(" ")
        if role is Role.NOUN and found and found[-1].head:
            found[-1] = Piece(found[-1].unit, Role.NOUN, found[-1].start, found[-1].end)
        noun = role is Role.NOUN and unit.noun is not None
        found.append(Piece(unit, role, places[at][0], places[last][1], noun))
        at = last + 1
    return found
