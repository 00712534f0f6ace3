"""What the best of several captions of a photo would score, were it known which that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nanocap.measure.metrics.measures import Measure, mean_measure
from nanocap.measure.metrics.reference import tokenize


def oracle_measure(
    candidates: Mapping[str, Sequence[str]], references: Mapping[str, Sequence[str]]
) -> Measure:
    """CIDEr (times 100) of each photo's best candidate: how much a better choice could gain.

    Args:
        candidates: one or more captions by key.
        references: references by the same keys.
    Raises:
        NanocapError: Java is missing or does not run.
        MissingExtraError: `pycocoevalcap` is not installed.
    """
    most = max(map(len, candidates.values()))
    single = {
        f"{n} {key}": texts[n] for key, texts in candidates.items() for n in range(len(texts))
    }
    ours, theirs = tokenize(single, references)
    from pycocoevalcap.cider.cider import Cider

    # every place is scored against all references, so that their document frequencies are the same
    best = np.full(len(candidates), -np.inf)
    for n in range(most):
        words = {key: ours[f"{min(n, len(texts) - 1)} {key}"] for key, texts in candidates.items()}
        _, scores = Cider().compute_score({key: theirs[key] for key in words}, words)
        best = np.maximum(best, scores)
    return mean_measure("oracle_cider", f"CIDEr, best of {most}", best, 100)
