"""Stage 1: captions that the teachers propose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite

from PIL import Image

from nanocap.distill.labelling.decision import Candidate, Decision
from nanocap.distill.labelling.lengths import TOO_LONG, shortened, whole_sentences
from nanocap.distill.teachers import KeyedTeacher, Teacher, ask
from nanocap.distill.teachers.ensemble import Pool

NOTHING = "no teacher has a caption of it"


def members(teachers: Sequence[Teacher | KeyedTeacher]) -> tuple[Teacher | KeyedTeacher, ...]:
    """The teachers one by one: whose captions a pool would mix keep their origin here."""
    return tuple(
        member
        for teacher in teachers
        for member in (teacher.members if isinstance(teacher, Pool) else (teacher,))
    )


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
