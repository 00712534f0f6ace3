"""A teacher's sentence with the names of the text that the photo came with."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nanocap.distill.labelling.backing import GROUPS, Backing
from nanocap.distill.labelling.pieces import Piece, pieces
from nanocap.distill.labelling.text_support import with_article
from nanocap.measure.metrics.facts import KINDS, Facts, closure, extract, of_kind
from nanocap.measure.metrics.facts.entries import lexicon
from nanocap.measure.metrics.facts.roles import Role


@dataclass(frozen=True)
class Named:
    """A sentence and what was put into it."""

    text: str
    notes: tuple[str, ...]


def name(sentence: str, originals: Sequence[str], backing: Backing) -> Named | None:
    """The sentence, more exact: `dog` becomes `retriever`, or `brown dog`, as an original says.

    A noun is replaced by one that entails it and that no detector misses; an adjective is added
    that some proposal says too. None where there is nothing to add, or where the new sentence
    would no longer state all that the old one did.
    """
    ours, theirs = pieces(sentence), [pieces(text) for text in originals]
    facts = extract(sentence)
    changes: dict[int, str] = {}
    notes = []
    for at, piece in enumerate(ours):
        if not _stands_alone(ours, at):
            continue
        exact = _more_exact(piece, theirs, backing)
        adjective = _adjective(piece, facts, theirs, backing)
        if exact or adjective:
            words = f"{adjective} {exact or sentence[piece.start : piece.end]}".strip()
            changes[at] = words
            notes.append(f"{piece.unit.text} -> {words}")
    if not changes:
        return None
    text = with_article(_changed(sentence, ours, changes))
    said = extract(text)
    if all(of_kind(facts, kind) <= closure(of_kind(said, kind)) for kind in KINDS):
        return Named(text, tuple(notes))
    return None


def _stands_alone(ours: Sequence[Piece], at: int) -> bool:
    """Whether a piece is the only noun of its name, part of no longer name, and can be counted."""
    piece = ours[at]
    before = ours[at - 1].role if at else None
    if at and ours[at - 1].unit.text.endswith("of") and not piece.unit.plural:
        return False  # "lots of furniture"
    same = [one for one in ours if one.unit.noun == piece.unit.noun and one.role is Role.NOUN]
    return piece.head and before is not Role.NOUN and len(same) == 1


def _more_exact(piece: Piece, theirs: Sequence[Sequence[Piece]], backing: Backing) -> str:
    """The one noun of the originals that is a kind of this noun; empty where several are."""
    general, entails = piece.unit.noun or "", lexicon().objects.entails
    names: dict[str, str] = {}
    for text in theirs:
        for other in text:
            special = other.unit.noun
            if other.head and special is not None and special not in (general, *GROUPS):
                same_number = other.unit.plural == piece.unit.plural
                if entails(special, general) and same_number and special not in backing.absent:
                    names.setdefault(special, other.unit.text)
    return next(iter(names.values())) if len(names) == 1 else ""


def _adjective(
    piece: Piece, facts: Facts, theirs: Sequence[Sequence[Piece]], backing: Backing
) -> str:
    """An adjective that an original gives to this noun, and that a proposal gives it too."""
    known, noun = lexicon(), piece.unit.noun or ""
    if any(owner == noun for owner, _ in facts.attributes):
        return ""
    for text in theirs:
        for one, other in itertools.pairwise(text):
            attribute, owner = one.unit.attribute, other.unit.noun
            if one.role is not Role.ADJECTIVE or not other.head or not attribute or not owner:
                continue
            counts = known.attributes.entails(attribute, "count")
            if (
                known.objects.entails(owner, noun)
                and not counts
                and backing.attribute(noun, attribute)
            ):
                return one.unit.text
    return ""


def _changed(sentence: str, ours: Sequence[Piece], changes: Mapping[int, str]) -> str:
    written, last = "", 0
    for at, words in sorted(changes.items()):
        written += sentence[last : ours[at].start] + words
        last = ours[at].end
    return written + sentence[last:]
