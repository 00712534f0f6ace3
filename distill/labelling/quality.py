"""Stage 5: what each caption states, against what others say and what a detector sees."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from nanocap.distill.labelling.decision import ORIGINAL, TEACHER, Candidate, Decision, Sight
from nanocap.distill.labelling.lengths import whole_sentences
from nanocap.distill.labelling.proposals import voices
from nanocap.distill.labelling.repetition import repeated
from nanocap.measure.metrics.facts import KINDS, Fact, closure, extract, of_kind
from nanocap.measure.metrics.facts.entries import lexicon

WEIGHTS = {"objects": 5, "attributes": 5, "relations": 2}  # CAPTURE's (Dong et al. 2024)
FEW = 0.5  # share of the others below which a detector's word against an object decides


@dataclass(frozen=True)
class Witness:
    """What one text states.

    Attributes:
        by: who wrote it.
        stated: its facts as it states them.
        entailed: and all that they entail.
    """

    by: str
    words: str
    stated: frozenset[Fact]
    entailed: frozenset[Fact]

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
    entails = lexicon().objects.entails
    return any(entails(one, name) or entails(name, one) for one in sight.seen)


def _denies(sight: Sight, name: str) -> bool:
    return not sight.absent.isdisjoint(lexicon().objects.kinds.get(name, ()))
