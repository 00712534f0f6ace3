"""The page of `nanocap bench`: quality, time and bytes of artifacts, and the machine's limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from nanocap.bundle.manifest import Artifact, Manifest
from nanocap.bundle.quality import records
from nanocap.measure.bench.report import as_json
from nanocap.measure.bench.results import CaptionResult, Report, RunResult, StageResult
from nanocap.measure.report.page import render, write_page
from nanocap.measure.report.plots.bubbles import Bubble, bubble_plot
from nanocap.measure.report.plots.roofline import Point, roofline_plot
from nanocap.measure.report.plots.stages import Bar, stage_plot

SCORE = "CIDEr"
BESIDES = 2  # steps besides one a piece: that of the first control token, and that which ends
STAGES = ("decode and resize", "begin", "steps", "the rest")


def write_bench_page(folder: Path, report: Report, manifest: Manifest) -> Path:
    """Write `folder/index.html`.

    Args:
        manifest: of the bundle that was measured.
    Raises:
        NanocapError: the page cannot be written.
    """
    return write_page(folder, render("bench.html", _values(report, manifest)))


def qualities(manifest: Manifest, names: Sequence[str]) -> tuple[str, dict[str, float]]:
    """What the manifest says of the artifacts' quality: on which photos, and CIDEr by artifact.

    Of several sets of photos, that on which most artifacts were measured; of those the first.
    """
    found: dict[str, dict[str, float]] = {}

    def add(artifact: Artifact, dataset: str, value: object) -> None:
        if artifact.name in names and isinstance(value, int | float):
            found.setdefault(dataset, {})[artifact.name] = float(value)

    for artifact, dataset, values in records(manifest):
        figure = values.get("figures", {}).get(SCORE.lower(), {})
        add(artifact, dataset, figure.get("value"))
    for artifact in manifest.artifacts:  # bundles from before `nanocap eval --record`
        for dataset, values in artifact.measured.items():
            if isinstance(values, Mapping):
                add(artifact, dataset, values.get(SCORE))
    if not found:
        return "", {}
    return max(found.items(), key=lambda item: len(item[1]))


def _values(report: Report, manifest: Manifest) -> dict[str, Any]:
    order = {name: place for place, name in enumerate(report.artifact_bytes)}
    dataset, quality = qualities(manifest, list(order))
    bubbles = [
        Bubble(
            _label(run),
            run.captions[-1].timing.p50,  # that with the bundle's own beams
            report.artifact_bytes[run.artifact],
            quality.get(run.artifact),
            order[run.artifact],
        )
        for run in report.runs
    ]
    axis = f"{SCORE} on {dataset}" if dataset else SCORE
    bars = [_bar(run, caption, report) for run in report.runs for caption in run.captions]
    return {
        "title": f"{report.name} {report.version}",
        "report": report,
        "values": as_json(report),
        "bubbles": bubble_plot(bubbles, axis),
        "beams": manifest.search.beams,
        "unmeasured": [name for name in order if name not in quality],
        "artifacts": order,
        "stages": STAGES,
        "bars": stage_plot(bars),
        "rooflines": _rooflines(report, order),
    }


def _bar(run: RunResult, caption: CaptionResult, report: Report) -> Bar:
    """A caption of the smallest photo, taken apart; what the stages leave over is the rest."""
    begin = next(stage for stage in run.stages if not stage.beams).timing.p50
    step = next(stage for stage in run.stages if stage.beams == caption.beams).timing.p50
    parts = [report.photos[-1].timing.p50, begin, step * (caption.tokens + BESIDES)]
    whole = caption.timing.p50
    parts.append(max(0.0, whole - sum(parts)))
    label = f"{_label(run)}, {_search(caption.beams)}"
    return Bar(label, tuple(zip(STAGES, parts, strict=True)), whole)


def _rooflines(report: Report, order: Mapping[str, int]) -> list[tuple[int, Markup]]:
    """A plot for each number of threads at which a stage was counted."""
    plots = []
    for peaks in report.peaks:
        points = [
            _point(run, stage, order)
            for run in report.runs
            for stage in run.stages
            if run.threads == peaks.threads and stage.roofline is not None
        ]
        if points:
            plots.append((peaks.threads, roofline_plot(peaks, points)))
    return plots


def _point(run: RunResult, stage: StageResult, order: Mapping[str, int]) -> Point:
    assert stage.roofline is not None
    counts = stage.roofline.counts
    name = f"step, {_search(stage.beams)}" if stage.beams else stage.name
    label = f"{run.artifact} {name}" if len(order) > 1 else name
    intensity = 2 * counts.multiply_adds / counts.moved_bytes
    return Point(label, intensity, stage.roofline.gops(stage.timing.p50), order[run.artifact])


def _label(run: RunResult) -> str:
    return f"{run.artifact}, {run.threads} thread{'s' * (run.threads > 1)}"


def _search(beams: int) -> str:
    return "greedy" if beams == 1 else f"{beams} beams"
