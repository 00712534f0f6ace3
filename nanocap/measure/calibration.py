"""Fitting a bundle's confidence to photos whose captions people wrote."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nanocap.bundle.confidence import FEATURES, Confidence, Known
from nanocap.caption import Caption
from nanocap.errors import DataError
from nanocap.measure.metrics.facts.entries import lexicon
from nanocap.measure.metrics.facts.roles import FUNCTION
from nanocap.measure.metrics.measures import Floats

FEWEST = 100  # photos; fewer say little about the tenths of captions that are rarely right
RIDGE = 2.0  # what a weight costs, of features scaled to a deviation of one
STEPS = 30  # of Newton's method, which needs about six


def fit_confidence(captions: Sequence[Caption], holds: Sequence[bool]) -> Confidence:
    """The logistic regression that foretells whether all is there that a caption names.

    Args:
        captions: with the search's other hypotheses as alternatives.
        holds: whether it is.
    Raises:
        DataError: there are few captions, or all of them hold, or none.
    """
    if len(captions) < FEWEST:
        raise DataError(f"{len(captions)} photos are too few to fit a confidence: {FEWEST} or more")
    if len(set(holds)) < 2:
        raise DataError("all captions hold, or none: there is nothing to fit a confidence to")
    words = plain_words()
    known = [Known.of(caption, frozenset(words)) for caption in captions]
    table = np.array([[feature(one) for feature in FEATURES.values()] for one in known])
    centre, scale = table.mean(0), table.std(0)
    varies = scale > 1e-9  # a model without evidence has some features that never change
    weights = np.zeros(len(FEATURES))
    intercept, weights[varies] = _logistic(
        (table[:, varies] - centre[varies]) / scale[varies], np.array(holds, np.float64)
    )
    weights[varies] /= scale[varies]
    return Confidence(
        intercept=float(intercept - weights @ centre),
        weights={name: float(w) for name, w in zip(FEATURES, weights, strict=True) if w},
        plain=tuple(words),
        photos=len(captions),
    )


def plain_words() -> list[str]:
    """Words that name nothing: articles, pronouns, conjunctions and prepositions."""
    prepositions = (phrase for phrase in lexicon().prepositions.names if " " not in phrase)
    return sorted({*FUNCTION, *prepositions})


def _logistic(x_NF: Floats, y_N: Floats) -> tuple[float, Floats]:
    """Intercept and weights, with a ridge on the weights, by Newton's method."""
    x = np.concatenate([np.ones((len(x_NF), 1)), x_NF], 1)
    ridge = np.diag([1e-6, *[RIDGE] * x_NF.shape[1]])
    beta = np.zeros(x.shape[1])
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(-np.clip(x @ beta, -30, 30)))
        gradient = x.T @ (p - y_N) + ridge @ beta
        beta -= np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + ridge, gradient)
    return float(beta[0]), beta[1:]
