"""Facts that captions state: which objects, attributes and relations, and who else saw them.

A caption is taken apart by a lexicon and rules, without a model; its facts are compared with those
of people's captions of the same photo.
"""

from nanocap.measure.metrics.facts.extraction import Facts, extract
from nanocap.measure.metrics.facts.scoring import (
    KINDS,
    Fact,
    FactCounts,
    PhotoCounts,
    closure,
    fact_counts,
    fact_measures,
    of_kind,
)

__all__ = [
    "KINDS",
    "Fact",
    "FactCounts",
    "Facts",
    "PhotoCounts",
    "closure",
    "extract",
    "fact_counts",
    "fact_measures",
    "of_kind",
]
