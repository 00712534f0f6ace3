"""Whether a caption's confidence is the probability that all is there that it names.

The calibration error follows Naeini et al., "Obtaining well calibrated probabilities using Bayesian
binning" (2015), risk and coverage Geifman and El-Yaniv, "Selective classification" (2017).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nanocap.measure.metrics.facts import fact_counts
from nanocap.measure.metrics.measures import Floats, SumMeasure, ratio

BINS = 10  # of equal width


@dataclass(frozen=True)
class Bin:
    """Captions of about one confidence."""

    confidence: float  # their mean, 0 to 1
    share: float  # of which all is there that they name
    photos: int


@dataclass(frozen=True)
class Reliability:
    """Confidences of captions, and what came of them.

    Attributes:
        confidences: 0 to 1, [photos].
        supported, mentioned: objects that some reference names, and all that the caption names,
            [photos].
    """

    confidences: Floats
    supported: Floats
    mentioned: Floats

    @property
    def holds(self) -> Floats:
        """1 where all is there that the caption names, [photos]."""
        return (self.supported >= self.mentioned).astype(np.float64)

    def bins(self) -> list[Bin]:
        """From the least sure captions to the surest, without empty bins."""
        members = _members(self.confidences)
        return [
            Bin(float(self.confidences[at].mean()), float(self.holds[at].mean()), int(at.sum()))
            for at in members.T.astype(bool)
            if at.any()
        ]

    def curve(self) -> list[tuple[float, float]]:
        """Coverage and risk, in percent: of the surest captions, the hallucinated objects."""
        order = np.argsort(-self.confidences, kind="stable")
        supported, mentioned = self.supported[order].cumsum(), self.mentioned[order].cumsum()
        coverage = 100 * np.arange(1, len(order) + 1) / len(order)
        risk = 100 * ratio(mentioned - supported, mentioned)
        return list(zip(coverage.tolist(), risk.tolist(), strict=True))

    def measures(self) -> list[SumMeasure]:
        """The expected calibration error, and how much less the surer half hallucinates."""
        members = _members(self.confidences)
        gaps = members * (self.confidences - self.holds)[:, None]
        errors = np.concatenate([gaps, np.ones((len(gaps), 1))], 1)
        surer = np.zeros(len(gaps))
        surer[np.argsort(-self.confidences, kind="stable")[: len(surer) // 2]] = 1
        wrong = self.mentioned - self.supported
        halves = np.stack([surer * wrong, surer * self.mentioned, wrong, self.mentioned], 1)
        return [
            SumMeasure("calibration", "calibration error", errors, _calibration_error, -1),
            SumMeasure("surer_half", "surer half, of halluc.", halves, _surer_half, -1),
        ]


def reliability(
    confidences: Mapping[str, float],
    captions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
) -> Reliability:
    """Of captions in the order of `captions`; all are by the same keys.

    Raises:
        NanocapError: a photo has no references.
        MissingExtraError: `simplemma` is not installed.
    """
    counts = [fact_counts(text, references[key]).objects for key, text in captions.items()]
    return Reliability(
        np.array([confidences[key] for key in captions], np.float64),
        np.array([one.supported for one in counts], np.float64),
        np.array([one.mentioned for one in counts], np.float64),
    )


def _members(confidences: Floats) -> Floats:
    """1 in the bin of each, [photos, BINS]."""
    return np.eye(BINS)[np.minimum((confidences * BINS).astype(int), BINS - 1)]


def _calibration_error(sums: Floats) -> Floats:
    return ratio(np.abs(sums[..., :-1]).sum(-1), sums[..., -1])


def _surer_half(sums: Floats) -> Floats:
    return ratio(ratio(sums[..., 0], sums[..., 1]), ratio(sums[..., 2], sums[..., 3]))
