"""CIDEr-D as a reward: document frequencies counted once, references weighted once.

Vedantam et al., "CIDEr" (2015); the variant of `pycocoevalcap` (n up to 4, clipped counts,
Gaussian length penalty, times ten), which a test compares it with.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

ORDERS = 4
SIGMA = 6.0  # words, of the length penalty

Gram = tuple[str, ...]


@dataclass(frozen=True)
class Vector:
    """tf-idf weights of a text's n-grams by order, their norms, its number of bigrams."""

    weights: tuple[dict[Gram, float], ...]
    norms: tuple[float, ...]
    length: int


def count_grams(words: Sequence[str]) -> Counter[Gram]:
    """n-grams of orders 1 to 4."""
    grams: Counter[Gram] = Counter()
    for order in range(1, ORDERS + 1):
        grams.update(tuple(words[i : i + order]) for i in range(len(words) - order + 1))
    return grams


class Cider:
    """Scores captions against references, with frequencies from a fixed set of photos.

    Args:
        references: for each photo its reference captions, as texts split by spaces.
    """

    def __init__(self, references: Sequence[Sequence[str]]):
        self._frequency: defaultdict[Gram, int] = defaultdict(int)
        for texts in references:
            for gram in {gram for text in texts for gram in count_grams(text.split())}:
                self._frequency[gram] += 1
        self._log_photos = math.log(max(2, len(references)))
        self._references: dict[str, Vector] = {}

    def score(self, caption: str, references: Sequence[str]) -> float:
        """CIDEr-D of one caption: 0 to 10, where `pycocoevalcap` prints the mean over photos."""
        ours = self._vector(caption)
        total = 0.0
        for text in references:
            if text not in self._references:
                self._references[text] = self._vector(text)
            total += _similarity(ours, self._references[text])
        return 10.0 * total / len(references)

    def _vector(self, text: str) -> Vector:
        words = text.split()
        weights: tuple[dict[Gram, float], ...] = tuple({} for _ in range(ORDERS))
        squares = [0.0] * ORDERS
        for gram, count in count_grams(words).items():
            rarity = self._log_photos - math.log(max(1, self._frequency.get(gram, 0)))
            weight = count * rarity
            weights[len(gram) - 1][gram] = weight
            squares[len(gram) - 1] += weight * weight
        return Vector(weights, tuple(map(math.sqrt, squares)), max(0, len(words) - 1))


def _similarity(ours: Vector, theirs: Vector) -> float:
    total = 0.0
    for order in range(ORDERS):
        other = theirs.weights[order]
        product = 0.0
        for gram, weight in ours.weights[order].items():
            if gram in other:
                product += min(weight, other[gram]) * other[gram]
        if ours.norms[order] and theirs.norms[order]:
            product /= ours.norms[order] * theirs.norms[order]
        total += product
    difference = ours.length - theirs.length
    return total / ORDERS * math.exp(-(difference**2) / (2 * SIGMA**2))
