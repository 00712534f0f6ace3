"""Stage 7: which captions a row keeps, and the level of quality that they share."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

from nanocap.distill.data.tokenizer import QUALITIES
from nanocap.distill.labelling.decision import Candidate, Decision

HIGH, MEDIUM, LOW = QUALITIES
# Support from which a caption is of a level; of captions whose support is unknown see `level`.
SUPPORT = {HIGH: 0.7, MEDIUM: 0.4}
# With a scorer: share of the strangers' captions that a caption must beat as well.
LINE_UP = {HIGH: 0.9, MEDIUM: 0.5}
NOTHING_LEFT = "none of its captions was kept"


def level(candidate: Candidate) -> str:
    """The level of a caption: the lower one of what its support and the line-up allow.

    One that nobody could be asked about is `medium`: nothing is known against it. One of which
    those who do not depend on its teacher confirm not one object is `low`, however often its
    teacher repeats it.
    """
    if candidate.confirmed is False:
        return LOW
    for name in (HIGH, MEDIUM):
        supported = (
            name == MEDIUM if candidate.support is None else (candidate.support >= SUPPORT[name])
        )
        if supported and (candidate.line_up is None or candidate.line_up >= LINE_UP[name]):
            return name
    return LOW


def grade(decision: Decision, most: int) -> Decision:
    """The decision with the levels of its captions, those dropped that the row does not keep.

    A row is of the level of its best caption in the order of `rank`, and keeps those that are no
    worse, at most `most`. So who says little, as all others do, lifts no row; and what is low is
    kept only where there is nothing else.
    """
    graded = decision.with_candidates(lambda one: replace(one, level=level(one)))
    levels = [one.level for one in graded.kept]
    if not levels:
        return replace(graded, left_out=NOTHING_LEFT)
    best = next((name for name in levels if name != LOW), LOW)
    place = count()

    def chosen(one: Candidate) -> Candidate:
        if QUALITIES.index(one.level) > QUALITIES.index(best):
            return replace(one, dropped=f"below {best}, the level of the best")
        return one if next(place) < most else replace(one, dropped=f"{most} are better")

    return replace(graded.with_candidates(chosen), level=best)
