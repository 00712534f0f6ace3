"""Stage 3: the text that a photo came with, fused with what the teachers see.

After CapsFusion (Yu et al. 2023) and FuseCap (Rotstein et al. 2023), without their language model:
web text knows names, captions know what is there. By rules over facts, whatever is written stands
in one of the two and is supported by the other.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from nanocap.distill.labelling.decision import (
    FUSED,
    ORIGINAL,
    TOO_LONG,
    Candidate,
    Decision,
    shortened,
    whole_sentences,
)
from nanocap.distill.labelling.proposals import distinct
from nanocap.distill.labelling.text_support import (
    GROUPS,
    Backing,
    Piece,
    pieces,
    prune,
    with_article,
)
from nanocap.measure.metrics.facts import KINDS, Facts, closure, extract, of_kind
from nanocap.measure.metrics.facts.entries import lexicon
from nanocap.measure.metrics.facts.roles import Role

MOST_ORIGINALS = 5  # texts of one photo that are looked at


def fuse(decision: Decision) -> Decision:
    """The decision with up to two more kinds of candidates, before those of the teachers.

    The sentence with most agreement, its nouns as exact as the photo's own text has them; and each
    of the photo's own texts, less what nothing supports. One of which too little is left is
    dropped. Teachers come last, so that of two in the same words the photo's own is kept.
    """
    if not decision.originals or not decision.kept:
        return decision
    backing = Backing.of(decision)
    originals = [whole_sentences(text) for text in decision.originals[:MOST_ORIGINALS]]
    own = [
        _own(text, cut, backing) for text, cut in zip(decision.originals, originals, strict=False)
    ]
    base = max(decision.kept, key=lambda one: one.agreement or 0.0)
    named = name(base.text, [text for text in originals if text], backing)
    if named is not None:
        own.insert(0, replace(base, text=named.text, origin=FUSED, notes=named.notes))
    return distinct(replace(decision, candidates=(*own, *decision.candidates)))


def _own(text: str, cut: str, backing: Backing) -> Candidate:
    if not cut:
        return Candidate(shortened(text), ORIGINAL, dropped=TOO_LONG)
    pruned = prune(cut, backing)
    gone = f"nothing supports: {', '.join(pruned.gone)}" if pruned.gone else ""
    if not pruned.text:
        return Candidate(cut, ORIGINAL, dropped=gone or "states too little")
    if pruned.text == cut:
        return Candidate(cut, ORIGINAL)
    return Candidate(pruned.text, FUSED, notes=(gone,))


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
