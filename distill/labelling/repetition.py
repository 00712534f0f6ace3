"""Captions that name a thing twice, as small captioners do: "a sink and a sink"."""

from __future__ import annotations

from itertools import pairwise

from nanocap.distill.labelling.pieces import Piece, pieces
from nanocap.measure.metrics.facts.roles import Role

_ARTICLES = ("a", "an")


def repeated(text: str) -> str:
    """The first noun phrase with `a` or `an` that stands in the text twice; empty if none does.

    Whoever means a second one says "another", and whoever means the same says "the".
    """
    seen = set()
    phrase: list[Piece] = []
    for piece, following in pairwise([*pieces(text), None]):
        if piece is None:
            continue
        if piece.unit.text in _ARTICLES:
            phrase = []
        phrase.append(piece)
        ends = following is None or following.role is not Role.NOUN
        if piece.role is Role.NOUN and ends:
            words = " ".join(one.unit.text for one in phrase[1:])
            if phrase[0].unit.text in _ARTICLES and words in seen:
                return words
            if phrase[0].unit.text in _ARTICLES:
                seen.add(words)
            phrase = []
    return ""
