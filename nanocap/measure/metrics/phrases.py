"""Worn phrases: runs of three words that a captioner says far more often than people do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nanocap.measure.metrics.measures import Floats, SumMeasure, ratio
from nanocap.measure.metrics.variety import n_grams, words

WORDS = 3  # of a phrase
CANDIDATES = 40  # phrases of which the most worn is sought, in each resample anew


@dataclass(frozen=True)
class WornPhrase:
    """A phrase, and in how many of 100 captions it stands."""

    text: str
    ours: float
    people: float

    @property
    def excess(self) -> float:
        """How many more of 100 captions have it than of people's, in points."""
        return self.ours - self.people


def worn_phrases(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]], count: int = 5
) -> list[WornPhrase]:
    """The `count` phrases that stand in more captions than in people's, the most worn first.

    Args:
        captions, references: by the same keys.
    """
    ours = Counter(phrase for text in captions.values() for phrase in phrases(text))
    people = Counter(
        phrase for key in captions for text in references[key] for phrase in phrases(text)
    )
    written = sum(len(references[key]) for key in captions)
    found = [
        WornPhrase(phrase, 100 * ours[phrase] / len(captions), 100 * people[phrase] / written)
        for phrase in ours
    ]
    # by the text as well, so that equal ones are in one order
    return sorted(found, key=lambda one: (-one.excess, one.text))[:count]


def worn_measure(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> SumMeasure:
    """By how many points the most worn phrase exceeds its share in people's captions.

    Args:
        captions, references: by the same keys, in the order of the photos.
    """
    candidates = [one.text for one in worn_phrases(captions, references, CANDIDATES)]
    sums = np.zeros((len(captions), 2 * len(candidates) + 2))
    for row, (key, text) in enumerate(captions.items()):
        theirs = Counter(phrase for one in references[key] for phrase in phrases(one))
        said = phrases(text)
        sums[row] = [
            *(phrase in said for phrase in candidates),
            *(theirs[phrase] for phrase in candidates),
            1,
            len(references[key]),
        ]
    return SumMeasure("worn", "worn phrases (points)", sums, _largest_excess, -1)


def phrases(text: str) -> set[str]:
    """The phrases of a caption."""
    return {" ".join(gram) for gram in n_grams(words(text), WORDS)}


def _largest_excess(sums: Floats) -> Floats:
    """Of sums [..., ours and people's by phrase, captions, people's captions]: [...]."""
    count = (sums.shape[-1] - 2) // 2
    if not count:
        return np.zeros(sums.shape[:-1])
    ours = ratio(sums[..., :count], sums[..., -2:-1])
    people = ratio(sums[..., count:-2], sums[..., -1:])
    excess: Floats = 100 * (ours - people).max(-1)
    return excess
