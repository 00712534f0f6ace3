"""The fact metric as figures with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

import numpy as np

from nanocap.measure.metrics.facts.scoring import KINDS, FactCounts, fact_counts
from nanocap.measure.metrics.measures import Floats, Measure, SumMeasure

FIGURES = ("precision", "recall", "f1")


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
    measures: list[Measure] = []
    for index, kind in enumerate(KINDS):
        for figure in FIGURES:
            label = f"{kind} {figure} (%)"
            measures.append(
                SumMeasure(f"{kind}_{figure}", label, table[:, index], _Percent(figure))
            )
    label = "hallucinated objects (%)"
    objects = table[:, KINDS.index("objects")]
    measures.append(
        SumMeasure("hallucination", label, objects, _Percent("hallucination"), better=-1)
    )
    return measures


@dataclass(frozen=True)
class _Percent:
    """A rate of `FactRates`, by name, of sums [..., 4]."""

    rate: str

    def __call__(self, sums: Floats) -> Floats:
        flat = sums.reshape(-1, sums.shape[-1])
        rates = [getattr(FactCounts(*map(float, row)).rates(), self.rate) for row in flat]
        return 100 * np.array(rates).reshape(sums.shape[:-1])
