"""Stages 1 and 2: captions that the teachers propose, and how much they agree in words."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import replace
from math import isfinite

from PIL import Image

from nanocap.distill.labelling.decision import (
    TEACHER,
    TOO_LONG,
    Candidate,
    Decision,
    shortened,
    whole_sentences,
)
from nanocap.distill.teachers import KeyedTeacher, Teacher, ask
from nanocap.measure.metrics.cider import Cider

NOTHING = "no teacher has a caption of it"
SAID = "another candidate says it in the same words"
WORDLESS = "has no words"


def propose(
    decisions: Sequence[Decision],
    images: Sequence[Image.Image],
    teachers: Sequence[Teacher | KeyedTeacher],
    captions: int,
) -> list[Decision]:
    """The decisions with at most `captions` candidates of each teacher, its best first.

    What two teachers say in the same words stands twice: that is evidence. Long captions are cut
    to whole sentences; those that cannot be are dropped, and empty ones never were.
    """
    keys = [decision.key for decision in decisions]
    answers = [ask(teacher, keys, images, captions) for teacher in teachers]
    found = []
    for decision, *several in zip(decisions, *answers, strict=True):
        candidates = []
        for teacher, scored in zip(teachers, several, strict=True):
            for one in scored:
                if one.text.strip():
                    candidates.append(_candidate(one.text, teacher.name, one.score))
        decision = replace(decision, candidates=tuple(candidates))
        found.append(decision if decision.kept else replace(decision, left_out=NOTHING))
    return found


def _candidate(text: str, teacher: str, score: float) -> Candidate:
    cut, known = whole_sentences(text), score if isfinite(score) else None
    if cut:
        return Candidate(cut, teacher=teacher, score=known)
    return Candidate(shortened(text), teacher=teacher, score=known, dropped=TOO_LONG)


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
        # the words of all voices but its own; one that says the same is another
        others = [text for one, text in zip(spoken, words, strict=True) if one is not candidate]
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
