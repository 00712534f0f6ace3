"""What speaks for the facts of a text that a photo came with: the proposals and the detector."""

from __future__ import annotations

from dataclasses import dataclass

from nanocap.distill.labelling.decision import Decision
from nanocap.distill.labelling.proposals import voices
from nanocap.measure.metrics.facts import Facts, extract
from nanocap.measure.metrics.facts.entries import lexicon

GROUPS = frozenset("couple crowd family band choir audience".split())  # more than one person
# Who says "a man" does not back "a woman", nor "a crowd"; but he may well have seen a doctor.
LITERAL = GROUPS | frozenset("man woman boy girl child baby".split())


@dataclass(frozen=True)
class Backing:
    """What others state, as they state it.

    Attributes:
        verbs: of their relations and of their attributes that are actions.
        absent: objects that the detector knows and does not suspect.
    """

    objects: frozenset[str]
    attributes: frozenset[tuple[str, str]]
    verbs: frozenset[str]
    absent: frozenset[str] = frozenset()

    @classmethod
    def of(cls, decision: Decision) -> Backing:
        """What the proposals state together, and what the detector sees."""
        stated = [extract(voice.text) for voice in voices(decision)]
        sight = decision.sight
        if sight is not None:
            stated.append(Facts(sight.seen, frozenset(), frozenset()))
        attributes = frozenset(pair for facts in stated for pair in facts.attributes)
        acts = {name for facts in stated for _, name, _ in facts.relations}
        return cls(
            frozenset(name for facts in stated for name in facts.objects),
            attributes,
            frozenset(acts | {name for _, name in attributes}),
            sight.absent if sight is not None else frozenset(),
        )

    def object(self, name: str) -> bool:
        """Whether others name it, a kind of it, or what it is a kind of.

        A photo's own text may be more exact than a teacher can be (a retriever, where all say
        dog). A role (a doctor) is backed by any person; what one sees at a glance (a woman) is not.
        """
        if name in self.absent:
            return False
        entails = lexicon().objects.entails
        if any(entails(one, name) or entails(name, one) for one in self.objects):
            return True
        role = entails(name, "person") and name not in LITERAL
        return role and any(entails(one, "person") for one in self.objects)

    def attribute(self, owner: str | None, name: str) -> bool:
        """Whether others say it, or more, of this object; of any object where there is none."""
        known = lexicon()
        return any(
            known.attributes.entails(stated, name) and (owner is None or _related(owner, other))
            for other, stated in self.attributes
        )

    def verb(self, name: str) -> bool:
        """Whether others see anybody do it."""
        return name in self.verbs


def _related(one: str, other: str) -> bool:
    entails = lexicon().objects.entails
    return entails(one, other) or entails(other, one)
