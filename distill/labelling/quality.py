"""Stages 5 to 7: captions verified, ranked and graded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, pairwise

from nanocap.distill.labelling.decision import (
    ORIGINAL,
    TEACHER,
    Candidate,
    Decision,
    Sight,
    whole_sentences,
)
from nanocap.distill.labelling.proposals import voices
from nanocap.distill.labelling.text_support import Piece, pieces
from nanocap.measure.metrics.facts import KINDS, Fact, closure, extract, of_kind
from nanocap.measure.metrics.facts.entries import lexicon
from nanocap.measure.metrics.facts.roles import Role
from nanocap.student.controls import QUALITIES

WEIGHTS = {"objects": 5, "attributes": 5, "relations": 2}  # CAPTURE's (Dong et al. 2024)
FEW = 0.5  # share of the others below which a detector's word against an object decides
_ARTICLES = ("a", "an")
Figure = Callable[[Candidate], float | None]
# What speaks for a caption: each counts alike, by places, as no two are on one scale. Support was
# tried, on photos set aside from training: the best captions of 197 photos score the same with it
# (CIDEr-D 0.72 and 0.70), and it favours whoever says least, as he is contradicted least.
FIGURES: tuple[Figure, ...] = (
    lambda one: one.score,
    lambda one: one.agreement,
    lambda one: one.match,
)
OWN = FIGURES[0]  # compared among the captions of one teacher only
HIGH, MEDIUM, LOW = QUALITIES
# Support from which a caption is of a level; of captions whose support is unknown see `level`.
SUPPORT = {HIGH: 0.7, MEDIUM: 0.4}
# With a scorer: share of the strangers' captions that a caption must beat as well.
LINE_UP = {HIGH: 0.9, MEDIUM: 0.5}
NOTHING_LEFT = "none of its captions was kept"


@dataclass(frozen=True)
class Witness:
    """What one text states."""

    by: str  # who wrote it
    words: str
    stated: frozenset[Fact]  # its facts as it states them
    entailed: frozenset[Fact]  # and all that they entail

    @classmethod
    def read(cls, by: str, text: str, words: str) -> Witness:
        """The facts of a text."""
        facts = extract(text)
        stated = frozenset[Fact]().union(*(of_kind(facts, kind) for kind in KINDS))
        return cls(by, words, stated, closure(stated))

    def backs(self, fact: Fact, exact: bool) -> bool:
        """Whether it says so; where it need not be `exact`, whether it says so less exactly."""
        return fact in self.entailed or (not exact and bool(closure([fact]) & self.stated))


def verify(decision: Decision) -> Decision:
    """The decision with each candidate's `support`, those dropped that are contradicted or repeat.

    Support is the mean over what a caption states, weighted by kind, of the share of the others
    who say so: of each teacher's other proposals, all teachers alike. What a detector sees, or
    both the photo's own text and a teacher say, is confirmed. What was fused may be more exact than
    those who confirm it. A caption that states nothing has no support; where there is nobody to ask
    it is unknown.

    A caption is contradicted that names an object which the detector knows and does not even
    suspect, if fewer than half of the others name it: the detector misses things too.
    """
    spoken = [Witness.read(one.teacher, one.text, one.words) for one in voices(decision)]
    cuts = map(whole_sentences, decision.originals)
    own = [Witness.read("", text, "") for text in cuts if text]

    def verified(candidate: Candidate) -> Candidate:
        teachers = candidate.origin == TEACHER
        others = _others(spoken, candidate)
        twice = repeated(candidate.text)
        if twice:
            return replace(candidate, dropped=f"says {twice} twice")
        facts = extract(candidate.text)
        total = weight = 0.0
        for kind in KINDS:
            for fact in sorted(of_kind(facts, kind)):
                share = _share(fact, others, exact=teachers)
                denied = kind == "objects" and decision.sight and _denies(decision.sight, fact[0])
                if denied and share < FEW:
                    few = f"{share:.0%} of the others name it" if others else "nobody else names it"
                    return replace(candidate, dropped=f"the detector sees no {fact[0]}, and {few}")
                seen = kind == "objects" and decision.sight and _sees(decision.sight, fact[0])
                if seen or _stated_twice(fact, own, others, teachers):
                    share = 1.0
                total += WEIGHTS[kind] * share
                weight += WEIGHTS[kind]
        confirmed = _confirmed(facts.objects, candidate, spoken, own, decision.sight)
        candidate = replace(candidate, confirmed=confirmed)
        asked = bool(others) or decision.sight is not None or (teachers and bool(own))
        if weight and not asked:
            return candidate
        return replace(candidate, support=total / weight if weight else 0.0)

    return decision.with_candidates(verified)


def _others(spoken: Sequence[Witness], candidate: Candidate) -> Mapping[str, list[Witness]]:
    """The witnesses by teacher, without the candidate itself."""
    found: defaultdict[str, list[Witness]] = defaultdict(list)
    for one in spoken:
        itself = one.by == candidate.teacher and one.words == candidate.words
        if not itself:
            found[one.by].append(one)
    return found


def _share(fact: Fact, others: Mapping[str, Sequence[Witness]], exact: bool) -> float:
    shares = [
        sum(witness.backs(fact, exact) for witness in several) / len(several)
        for several in others.values()
    ]
    return sum(shares) / len(shares) if shares else 0.0


def _confirmed(
    objects: Collection[str],
    candidate: Candidate,
    spoken: Sequence[Witness],
    own: Sequence[Witness],
    sight: Sight | None,
) -> bool | None:
    """See `Candidate.confirmed`.

    Who names no object at all is nobody to ask; nor is a detector that sees other things, as there
    is more in a photo than it knows. (Tried: captions that it confirms nothing of are no worse.)
    """
    others = [one for one in spoken if one.by != candidate.teacher]
    others += own if candidate.origin != ORIGINAL else ()
    known = [one for one in others if any(len(fact) == 1 for fact in one.stated)]
    if sight is not None and any(_sees(sight, name) for name in objects):
        return True
    if not known:
        return None
    return any(one.backs((name,), exact=False) for one in known for name in objects)


def _stated_twice(
    fact: Fact, own: Sequence[Witness], others: Mapping[str, Sequence[Witness]], by_teacher: bool
) -> bool:
    """Whether both the photo's own text and a teacher state it: neither knows of the other."""
    if not any(one.backs(fact, exact=True) for one in own):
        return False
    return by_teacher or any(
        one.backs(fact, exact=False) for several in others.values() for one in several
    )


def _sees(sight: Sight, name: str) -> bool:
    """A detector that sees a person has seen as much of a woman as it can."""
    return any(lexicon().objects.related(one, name) for one in sight.seen)


def _denies(sight: Sight, name: str) -> bool:
    return not sight.absent.isdisjoint(lexicon().objects.kinds.get(name, ()))


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


def rank(decision: Decision) -> Decision:
    """The decision with each candidate's `rank`, best first; the dropped ones after the others.

    The rank is a Borda count: the share of the other candidates that one beats (a tie is half a
    win), averaged over the figures that both have. Of two that are equal, the one that stood first
    stays first.
    """
    kept = decision.kept
    ranked = [replace(one, rank=_rank(one, kept)) for one in kept]
    ranked.sort(key=lambda one: -(one.rank or 0.0))
    dropped = [one for one in decision.candidates if one.dropped]
    return replace(decision, candidates=(*ranked, *dropped))


def _rank(one: Candidate, kept: Sequence[Candidate]) -> float:
    wins = []
    for figure in FIGURES:
        ours = figure(one)
        others = [
            c for c in kept if c is not one and (figure is not OWN or c.teacher == one.teacher)
        ]
        theirs = [value for value in map(figure, others) if value is not None]
        if ours is not None and theirs:
            beaten = sum(1.0 if ours > value else 0.5 * (ours == value) for value in theirs)
            wins.append(beaten / len(theirs))
    return sum(wins) / len(wins) if wins else 0.5


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
