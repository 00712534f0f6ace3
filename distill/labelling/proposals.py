"""Stage 2: how much the proposals agree, in words."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from nanocap.distill.labelling.decision import TEACHER, Candidate, Decision
from nanocap.distill.labelling.lengths import TOO_LONG
from nanocap.distill.training.cider import Cider

SAID = "another candidate says it in the same words"
WORDLESS = "has no words"


def voices(decision: Decision) -> list[Candidate]:
    """All that teachers proposed and that can be read; equal ones each count as evidence."""
    unread = (TOO_LONG, WORDLESS)
    return [c for c in decision.candidates if c.origin == TEACHER and c.dropped not in unread]


def agree(decision: Decision) -> Decision:
    """The decision with each candidate's `agreement`, and those in equal words dropped.

    That is consensus as `nanocap.distill.teachers.ensemble` describes it: mean CIDEr-D against the
    proposals of all teachers, in which all n-grams weigh the same. A lone proposal has none; what
    has one already keeps it.
    """
    decision = distinct(decision)
    cider, spoken = Cider(()), voices(decision)
    words = [one.words for one in spoken]

    def measured(candidate: Candidate) -> Candidate:
        others = _without(spoken, words, candidate)
        if candidate.agreement is not None or not others:
            return candidate
        score = cider.score(candidate.words, others)
        return dataclasses.replace(candidate, agreement=score)

    return decision.with_candidates(measured)


def distinct(decision: Decision) -> Decision:
    """The decision with candidates dropped that say what one before them said, or nothing."""
    seen: set[str] = set()

    def first(candidate: Candidate) -> Candidate:
        words = candidate.words
        if not words or words in seen:
            return dataclasses.replace(candidate, dropped=SAID if words else WORDLESS)
        seen.add(words)
        return candidate

    return decision.with_candidates(first)


def _without(spoken: Sequence[Candidate], words: Sequence[str], candidate: Candidate) -> list[str]:
    """The words of all voices but the candidate's own; one that says the same is another."""
    return [text for one, text in zip(spoken, words, strict=True) if one is not candidate]
