"""Calibrated confidence: the probability that all is there that a caption names.

A logistic regression on what is known when a caption is found: how sure the decoder was of the
words that name something, whether the encoder had found them, and whether the other hypotheses say
them too. Its weights are data of the bundle; `nanocap calibrate` fits them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from nanocap.caption import Caption, Tag, Token

LEAST = 1e-12  # a probability whose logarithm can be taken
START = "\u2581"  # a piece that starts a word


@dataclass(frozen=True)
class Known:
    """What is known of a caption.

    Attributes:
        tokens: of the caption.
        tags: words that the encoder found in the image.
        others: the sentences of the search's other hypotheses.
        plain: words that name nothing, such as "the".
    """

    tokens: Sequence[Token]
    tags: Sequence[Tag]
    others: Sequence[str]
    plain: frozenset[str]

    @classmethod
    def of(cls, caption: Caption, plain: frozenset[str]) -> Known:
        """Of a caption with its tags, and the other hypotheses as alternatives."""
        return cls(caption.tokens, caption.tags, [o.text for o in caption.alternatives], plain)

    @cached_property
    def logs(self) -> list[float]:
        """Log probabilities of the tokens."""
        return [math.log(max(token.probability, LEAST)) for token in self.tokens]

    @cached_property
    def words(self) -> list[tuple[str, float]]:
        """Words that name something, each with its log probability."""
        words: list[list[str]] = []
        logs: list[float] = []
        for token, log in zip(self.tokens, self.logs, strict=True):
            if token.piece.startswith(START) or not words:
                words.append([])
                logs.append(0.0)
            words[-1].append(token.piece.removeprefix(START))
            logs[-1] += log
        joined = ("".join(parts) for parts in words)
        return [both for both in zip(joined, logs, strict=True) if both[0] not in self.plain]

    @cached_property
    def found(self) -> dict[str, float]:
        """Probabilities of the tags, by word."""
        return {tag.word: tag.probability for tag in self.tags}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(1, len(values))


def _agreement(known: Known) -> float:
    said = [set(text.lower().rstrip(".").split()) for text in known.others]
    return _mean([word in others for others in said for word, _ in known.words]) if said else 1.0


FEATURES: dict[str, Callable[[Known], float]] = {
    # log probabilities: the mean of the pieces, and the mean and the least of the naming words
    "pieces": lambda known: _mean(known.logs),
    "words": lambda known: _mean([log for _, log in known.words]),
    "least": lambda known: min((log for _, log in known.words), default=0.0),
    # how many words name something, and how many of these the encoder had not found
    "count": lambda known: len(known.words),
    "unfound": lambda known: sum(word not in known.found for word, _ in known.words),
    # how sure the encoder was of the words said, and of the likeliest
    "found": lambda known: sum(known.found.get(word, 0.0) for word, _ in known.words),
    "likeliest": lambda known: max(known.found.values(), default=0.0),
    # the share of the naming words that the other hypotheses say
    "agreement": _agreement,
}


@dataclass(frozen=True)
class Confidence:
    """The regression.

    Attributes:
        intercept: in nats, of a caption whose features are all 0.
        weights: by names of `FEATURES`.
        plain: words that name nothing.
        photos: how many it was fitted on.
    """

    intercept: float
    weights: Mapping[str, float]
    plain: tuple[str, ...]
    photos: int

    def of(self, caption: Caption) -> float:
        """The probability that all is there that a caption names, 0 to 1.

        Args:
            caption: with its tags, and all that the search found besides as alternatives.
        """
        known = Known.of(caption, frozenset(self.plain))
        logit = self.intercept + sum(w * FEATURES[name](known) for name, w in self.weights.items())
        return 1 / (1 + math.exp(-max(-500.0, min(500.0, logit))))
