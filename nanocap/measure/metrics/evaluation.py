"""All figures of a set of captions together, and two sets of them side by side."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nanocap.measure.metrics.facts import fact_measures
from nanocap.measure.metrics.measures import Interval, Measure
from nanocap.measure.metrics.phrases import WornPhrase, worn_measure, worn_phrases
from nanocap.measure.metrics.reference import SCORERS, Missing, oracle_measure, reference_measures
from nanocap.measure.metrics.reliability import Reliability, reliability
from nanocap.measure.metrics.retrieval import retrieval_measures
from nanocap.measure.metrics.variety import variety_measures

DECIMALS = 3  # in JSON


class Matcher(Protocol):
    """How well each of some texts fits each of the photos that are scored."""

    def __call__(self, texts: Sequence[str], keys: Sequence[str]) -> npt.NDArray[np.floating]:
        """Similarities [texts, photos]."""
        ...


@dataclass(frozen=True)
class Evaluation:
    """The figures of one captioner on one set of photos."""

    keys: tuple[str, ...]  # of the photos, in the order that all measures keep
    captions: tuple[str, ...]
    measures: tuple[Measure, ...]
    missing: tuple[Missing, ...]
    worn: tuple[WornPhrase, ...] = ()  # the most worn first
    reliability: Reliability | None = None  # of captions that came with a confidence

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: `figures` by key with value, low and high; worn phrases; what is missing."""
        return {
            "photos": len(self.keys),
            "figures": {measure.key: _rounded(measure.interval()) for measure in self.measures},
            "worn_phrases": [
                {"phrase": one.text, "percent": round(one.ours, 1), "people": round(one.people, 1)}
                for one in self.worn
            ],
            "missing": {one.label: one.reason for one in self.missing},
        }


@dataclass(frozen=True)
class Difference:
    """One figure of two captioners on the same photos."""

    label: str
    key: str
    first: Interval
    second: Interval
    difference: Interval  # of the first less the second, paired by photo
    verdict: str  # "first", "second" or "no difference", the last where the interval holds zero


def evaluate(
    captions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    seen: Collection[str] | None = None,
    scorers: Collection[str] = tuple(SCORERS),
    candidates: Mapping[str, Sequence[str]] | None = None,
    matcher: Matcher | None = None,
    confidences: Mapping[str, float] | None = None,
) -> Evaluation:
    """Score one caption a photo.

    Args:
        captions, references: by the same keys.
        seen: captions of the training data, for the share that is repeated verbatim.
        candidates: several captions a photo by the same keys, for the score of the best of them.
        scorers: those of `pycocoevalcap` that are wanted, keys of `reference.SCORERS`.
        matcher: an image-text scorer, for retrieval.
        confidences: of the captions by the same keys, where they are probabilities.
    Raises:
        NanocapError: the keys differ, a photo has no references, there is none, or Java is missing.
        MissingExtraError: the packages of the extra `eval` are not installed.
    """
    # one order of the photos, so that two evaluations can be paired whatever wrote the captions
    ordered = {key: captions[key] for key in sorted(captions)}
    found = [
        *reference_measures(ordered, references, scorers),
        *fact_measures(ordered, references),
        *variety_measures(list(ordered.values()), seen),
        worn_measure(ordered, references),
    ]
    if candidates is not None:
        found.append(oracle_measure({key: candidates[key] for key in ordered}, references))
    reliable = None if confidences is None else reliability(confidences, ordered, references)
    found += reliable.measures() if reliable is not None else []
    found += _retrieval(ordered, references, matcher)
    return Evaluation(
        keys=tuple(ordered),
        captions=tuple(ordered.values()),
        measures=tuple(one for one in found if not isinstance(one, Missing)),
        missing=tuple(one for one in found if isinstance(one, Missing)),
        worn=tuple(worn_phrases(ordered, references)),
        reliability=reliable,
    )


def _retrieval(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]], matcher: Matcher | None
) -> list[Measure | Missing]:
    label = "retrieval R@1"
    if matcher is None:
        return [Missing(label, "an image-text scorer decides it: give --scorer")]
    if len(captions) < 2:
        return [Missing(label, "one photo cannot be taken for another")]
    keys = list(captions)
    people = matcher([references[key][0] for key in keys], keys)
    return [*retrieval_measures(matcher([captions[key] for key in keys], keys), people)]


def compare(first: Evaluation, second: Evaluation) -> list[Difference]:
    """Figure by figure, on the same photos.

    Raises:
        ValueError: the photos differ.
    """
    if first.keys != second.keys:
        raise ValueError("only captions of the same photos can be compared")
    others = {measure.key: measure for measure in second.measures}
    rows = []
    for ours in first.measures:
        theirs = others.get(ours.key)
        if theirs is None:
            continue
        difference = ours.difference(theirs)
        verdict = "no difference"
        if difference.excludes_zero and ours.better:
            verdict = "first" if difference.value * ours.better > 0 else "second"
        elif difference.excludes_zero:
            verdict = "they differ"
        both = ours.interval(), theirs.interval()
        rows.append(Difference(ours.label, ours.key, *both, difference, verdict))
    return rows


def differences_to_dict(rows: Sequence[Difference]) -> dict[str, Any]:
    """JSON-ready: by figure `first`, `second`, `difference` and `verdict`."""
    return {
        row.key: {
            "first": _rounded(row.first),
            "second": _rounded(row.second),
            "difference": _rounded(row.difference),
            "verdict": row.verdict,
        }
        for row in rows
    }


def oddities(captions: Mapping[str, str]) -> dict[str, list[str]]:
    """Keys of captions that are scored as they are but hardly mean what a caption means."""
    return {
        "empty": [key for key, text in captions.items() if not text.strip()],
        "in another script than Latin": [
            key for key, text in captions.items() if _mostly_foreign(text)
        ],
    }


def _mostly_foreign(text: str) -> bool:
    letters = list(filter(str.isalpha, text))
    latin = sum(unicodedata.name(char, "").startswith("LATIN") for char in letters)
    return 2 * latin < len(letters)


def _rounded(interval: Interval) -> dict[str, float]:
    names = ("value", "low", "high")
    return {name: round(getattr(interval, name), DECIMALS) for name in names}
