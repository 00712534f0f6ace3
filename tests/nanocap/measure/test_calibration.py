"""Fitting a confidence: it finds what foretells, and is calibrated where it was not fitted."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nanocap.caption import Caption, Tag, Token
from nanocap.errors import DataError
from nanocap.measure.calibration import FEWEST, fit_confidence, plain_words


def drawn(count: int, seed: int) -> tuple[list[Caption], list[bool]]:
    """Captions of one word: sure ones hold more often, and words that the encoder found too."""
    random = np.random.default_rng(seed)
    captions, holds = [], []
    for _ in range(count):
        log, found = random.uniform(-3, 0), random.random() < 0.5
        tokens = (Token(9, "\u2581a", 0.9), Token(10, "\u2581dog", math.exp(log)))
        tags = (Tag("dog" if found else "cat", 0.7),)
        captions.append(Caption("A dog.", 0.5, tokens, tags=tags))
        logit = 1.0 + 1.5 * log + 2.0 * found
        holds.append(bool(random.random() < 1 / (1 + math.exp(-logit))))
    return captions, holds


def test_it_foretells_captions_that_it_was_not_fitted_to() -> None:
    fitted = fit_confidence(*drawn(2000, seed=1))
    assert fitted.photos == 2000
    captions, holds = drawn(4000, seed=2)
    said = np.array([fitted.of(caption) for caption in captions])
    held = np.array(holds, float)
    for low in np.arange(0, 1, 0.2):
        here = (said >= low) & (said < low + 0.2)
        assert held[here].mean() == pytest.approx(said[here].mean(), abs=0.05)
    surest = np.argsort(-said)[:1000]
    assert held[surest].mean() > held.mean() + 0.25
    # what never differs has no weight, and is not written
    assert "count" not in fitted.weights
    assert "agreement" not in fitted.weights


def test_words_that_name_nothing() -> None:
    words = plain_words()
    assert {"the", "on", "of", "and"} <= set(words)
    assert not {"dog", "table", "red"} & set(words)
    assert all(" " not in word for word in words)


def test_what_cannot_be_fitted() -> None:
    captions, holds = drawn(FEWEST, seed=3)
    with pytest.raises(DataError, match="99 photos are too few"):
        fit_confidence(captions[1:], holds[1:])
    with pytest.raises(DataError, match="all captions hold, or none"):
        fit_confidence(captions, [True] * FEWEST)
