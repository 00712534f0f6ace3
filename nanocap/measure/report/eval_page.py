"""The page of `nanocap eval`: every figure with its interval, and photos with what was seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from nanocap.measure.metrics.evaluation import Difference, Evaluation
from nanocap.measure.metrics.measures import SumMeasure
from nanocap.measure.report.cards import Card, Photo, Reader, Side, card
from nanocap.measure.report.choice import Section, choose
from nanocap.measure.report.page import render, write_page
from nanocap.measure.report.plots.intervals import Row, interval_plot
from nanocap.measure.report.plots.reliability import reliability_plot, risk_coverage_plot

# they share no axis with scores and percentages
COUNTS = {"distinct", "vocabulary", "words", "calibration", "surer_half"}
NO_DIFFERENCE = "no difference"


@dataclass(frozen=True)
class Shown:
    """A section with its cards."""

    name: str
    cards: tuple[Card, ...]
    elsewhere: tuple[tuple[str, str], ...]  # key and anchor of photos that an earlier one shows


def write_eval_page(
    folder: Path,
    sides: Sequence[Side],
    evaluations: Sequence[Evaluation],
    rows: Sequence[Difference],
    photos: Sequence[Photo],
    left_out: int,
    step: Callable[[], None] = lambda: None,
) -> Path:
    """Write `folder/index.html`.

    Args:
        sides: one captioner or two.
        evaluations: of each.
        rows: their comparison, where there are two.
        photos: all that were scored, in any order.
        left_out: how many inputs were not scored.
        step: called after each photo that is shown.
    Raises:
        NanocapError: the page cannot be written.
    """
    keys = evaluations[0].keys
    by, scores = photo_scores(evaluations[0], sides[0])
    sections = choose(keys, scores)
    readers = [Reader(side) for side in sides]
    shown = _sections(sections, readers, evaluations, {p.key: p for p in photos}, step)
    values = {
        "title": " and ".join(side.name for side in sides),
        "sides": sides,
        "photos": len(keys),
        "left_out": left_out,
        "evaluations": evaluations,
        "rows": rows,
        "plots": [
            *(_difference_plots(rows) if rows else _figure_plots(evaluations[0])),
            *_confidence_plots(evaluations),
        ],
        "winner": {"first": sides[0].name, "second": sides[-1].name},
        "sections": shown,
        "by": by,
        "has_maps": any(
            word.overlay for s in shown for c in s.cards for d in c.said for word in d.words
        ),
        "reasons": [reader.reason for reader in readers if reader.reason],
    }
    return write_page(folder, render("eval.html", values))


def photo_scores(evaluation: Evaluation, side: Side) -> tuple[str, Mapping[str, float] | None]:
    """A score for each photo and its name: CIDEr, else confidence; None where there is neither."""
    for measure in evaluation.measures:
        if measure.key == "cider" and isinstance(measure, SumMeasure):
            values = measure.value(measure.sums)
            return "CIDEr", dict(zip(evaluation.keys, map(float, values), strict=True))
    if all(key in side.spoken for key in evaluation.keys):
        return "confidence", {key: side.spoken[key].confidence for key in evaluation.keys}
    return "", None


def _sections(
    sections: Sequence[Section],
    readers: Sequence[Reader],
    evaluations: Sequence[Evaluation],
    photos: Mapping[str, Photo],
    step: Callable[[], None],
) -> list[Shown]:
    ciders = [photo_scores(e, r.side) for e, r in zip(evaluations, readers, strict=True)]
    anchors: dict[str, str] = {}
    found = []
    for section in sections:
        cards = []
        for key in section.keys:
            said = []
            for reader, (name, scores) in zip(readers, ciders, strict=True):
                is_cider = scores is not None and name == "CIDEr"
                score = [(name, f"{scores[key]:.0f}")] if scores and is_cider else []
                said.append(reader.said(photos[key], score))
            alt = readers[0].side.texts[key]
            cards.append(card(photos[key], len(anchors), alt, said))
            anchors[key] = cards[-1].anchor
            step()
        elsewhere = tuple((key, anchors[key]) for key in section.elsewhere)
        found.append(Shown(section.name, tuple(cards), elsewhere))
    return found


def _figure_plots(evaluation: Evaluation) -> list[tuple[str, Markup]]:
    rows = [
        Row(measure.label, (measure.interval(),))
        for measure in evaluation.measures
        if measure.key not in COUNTS
    ]
    return [("Scores and percentages", interval_plot(rows, "Figures with their 95 % intervals"))]


def _confidence_plots(evaluations: Sequence[Evaluation]) -> list[tuple[str, Markup]]:
    """Of the captioners whose confidence is a probability, in the colours of all."""
    found = [one.reliability for one in evaluations if one.reliability is not None]
    if len(found) < len(evaluations):
        return []
    return [
        ("Confidence, and how often it is right", reliability_plot(found)),
        ("What is wrong where only the surest count", risk_coverage_plot(found)),
    ]


def _difference_plots(rows: Sequence[Difference]) -> list[tuple[str, Markup]]:
    rows = [row for row in rows if row.key not in COUNTS]
    both = [Row(row.label, (row.first, row.second)) for row in rows]
    differences = [Row(row.label, (row.difference,), row.verdict == NO_DIFFERENCE) for row in rows]
    return [
        ("Scores and percentages", interval_plot(both, "Figures of both, with 95 % intervals")),
        ("First less second", interval_plot(differences, "Differences, with 95 % intervals")),
    ]
