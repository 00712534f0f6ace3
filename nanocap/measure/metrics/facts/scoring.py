"""Facts of a caption against the facts of references, as sums that add up over photos.

Precision and recall of objects, attributes and relations follow CAPTURE (Dong et al. 2024,
"Benchmarking and Improving Detail Image Caption") and DCScore (Ye et al. 2025); hallucination, the
share of mentioned objects that nobody else saw, follows CHAIR (Rohrbach et al. 2018).

A fact supports every fact that it entails: a man is a person, a navy shirt is blue clothing. So a
caption may be less exact than a reference, never more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from itertools import product
from operator import add
from typing import TypeAlias

import numpy as np

from nanocap.errors import NanocapError
from nanocap.measure.metrics.facts.entries import lexicon
from nanocap.measure.metrics.facts.extraction import Facts, extract
from nanocap.measure.metrics.measures import Floats, Measure, SumMeasure

Fact: TypeAlias = tuple[str, ...]

KINDS = ("objects", "attributes", "relations")
FIGURES = ("precision", "recall", "f1")


@dataclass(frozen=True)
class FactCounts:
    """Sums of one kind of fact over one photo or many. They add up; that is all they are for."""

    supported: float = 0.0  # facts of the captions that some reference entails
    mentioned: float = 0.0  # facts of the captions
    covered: float = 0.0  # what the captions entail of `wanted`
    wanted: float = 0.0  # facts of the references, each counting the share of those that entail it

    def __add__(self, other: FactCounts) -> FactCounts:
        return FactCounts(*map(add, astuple(self), astuple(other)))

    def rates(self) -> FactRates:
        """Precision, recall and their kind over all that was summed (micro-averaged)."""
        precision = self.supported / self.mentioned if self.mentioned else 1.0
        recall = self.covered / self.wanted if self.wanted else 1.0
        both = precision + recall
        return FactRates(precision, recall, 2 * precision * recall / both if both else 0.0)


@dataclass(frozen=True)
class FactRates:
    """Shares from 0 to 1. Nothing mentioned is precise, nothing wanted is covered: 1 each.

    For objects, `hallucination` is CHAIR's rate; read it together with `recall`, the coverage,
    because a caption that says nothing hallucinates nothing.
    """

    precision: float
    recall: float
    f1: float

    @property
    def hallucination(self) -> float:
        return 1.0 - self.precision


@dataclass(frozen=True)
class PhotoCounts:
    """The sums of each kind; `a + b` and `sum(several, PhotoCounts())` are those of all photos."""

    objects: FactCounts = FactCounts()
    attributes: FactCounts = FactCounts()
    relations: FactCounts = FactCounts()

    def __add__(self, other: PhotoCounts) -> PhotoCounts:
        return PhotoCounts(
            self.objects + other.objects,
            self.attributes + other.attributes,
            self.relations + other.relations,
        )


def fact_measures(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> list[Measure]:
    """Precision, recall and F1 of objects, attributes and relations, and hallucinated objects.

    All in percent, micro-averaged over the photos; captions and references have the same keys.

    Raises:
        NanocapError: a photo has no references.
        MissingExtraError: `simplemma` is not installed.
    """
    counts = [fact_counts(captions[key], references[key]) for key in captions]
    table = np.array([astuple(photo) for photo in counts], np.float64)  # [photos, kinds, sums]
    measures: list[Measure] = [
        SumMeasure(f"{kind}_{figure}", f"{kind} {figure} (%)", table[:, index], _Percent(figure))
        for index, kind in enumerate(KINDS)
        for figure in FIGURES
    ]
    label, objects = "hallucinated objects (%)", table[:, KINDS.index("objects")]
    hallucinated = SumMeasure("hallucination", label, objects, _Percent("hallucination"), better=-1)
    return [*measures, hallucinated]


@dataclass(frozen=True)
class _Percent:
    """A rate of `FactRates`, by name, of sums [..., 4]."""

    rate: str

    def __call__(self, sums: Floats) -> Floats:
        flat = sums.reshape(-1, sums.shape[-1])
        rates = [getattr(FactCounts(*map(float, row)).rates(), self.rate) for row in flat]
        return 100 * np.array(rates).reshape(sums.shape[:-1])


def fact_counts(caption: str, references: Sequence[str]) -> PhotoCounts:
    """The sums of one photo: its caption against its references, whatever their order.

    Raises:
        NanocapError: there is no reference.
        MissingExtraError: `simplemma` is not installed.
    """
    if not references:
        raise NanocapError("facts: a photo has no reference captions to compare with")
    ours = extract(caption)
    theirs = [extract(text) for text in references]
    return PhotoCounts(*(_count(of_kind(ours, k), [of_kind(t, k) for t in theirs]) for k in KINDS))


def of_kind(facts: Facts, kind: str) -> frozenset[Fact]:
    """The facts of one of `KINDS`, an object as a tuple of one name."""
    if kind == "objects":
        return frozenset((name,) for name in facts.objects)
    return frozenset(facts.attributes if kind == "attributes" else facts.relations)


def _count(ours: Collection[Fact], theirs: Sequence[Collection[Fact]]) -> FactCounts:
    entailed = [closure(facts) for facts in theirs]
    seen = frozenset().union(*entailed)
    said = closure(ours)
    named = Counter(fact for facts in theirs for fact in facts)
    # Sorted, so that a sum of fractions does not depend on the order of the references.
    weights = {fact: sum(fact in facts for facts in entailed) for fact in sorted(named)}
    return FactCounts(
        supported=sum(fact in seen for fact in ours),
        mentioned=len(ours),
        covered=sum(n for fact, n in weights.items() if fact in said) / len(theirs),
        wanted=sum(weights.values()) / len(theirs),
    )


def closure(facts: Iterable[Fact]) -> frozenset[Fact]:
    """The facts and all that they entail."""
    return frozenset(general for fact in facts for general in product(*_general(fact)))


def _general(fact: Fact) -> list[Collection[str]]:
    """What each word of a fact may be replaced by: its kinds."""
    known = lexicon()
    objects = known.objects.kinds
    if len(fact) == 1:
        return [objects[fact[0]]]
    if len(fact) == 2:  # an attribute is of the lexicon, or a verb
        attribute = known.attributes.kinds.get(fact[1], (fact[1],))
        return [objects[fact[0]], attribute]
    return [objects[fact[0]], (fact[1],), objects[fact[2]]]
