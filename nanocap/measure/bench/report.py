"""A report as a table for people and as values for JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from nanocap.measure.bench.results import CaptionResult, Report, RunResult, StageResult
from nanocap.measure.bench.stages import BEGIN

TOP = 5  # operators named in the table
MB = 1e6


def as_text(report: Report) -> str:
    """The tables, without a line end."""
    parts = [_head(report), _photos(report), _runs(report), _roofline(report), _rest(report)]
    return "\n\n".join(part for part in parts if part)


def as_json(report: Report) -> dict[str, Any]:
    """The report as plain values: milliseconds, bytes, and rates a second, rounded."""
    return {
        "bundle": report.bundle,
        "name": report.name,
        "version": report.version,
        "bytes": report.bytes,
        "machine": dataclasses.asdict(report.machine),
        "rounds": report.rounds,
        "photos": [
            {
                "photo": photo.name,
                "width": photo.width,
                "height": photo.height,
                "bytes": photo.bytes,
                "ms": _short(photo.timing.p50),
                "p95_ms": _short(photo.timing.p95),
            }
            for photo in report.photos
        ],
        "peaks": [
            {
                "threads": peaks.threads,
                "fp32_gflops": _short(peaks.float_gflops),
                "int8_gops": _short(peaks.int8_gops),
                "copy_gb_per_s": _short(peaks.memory_gigabytes),
                "cache_gb_per_s": _short(peaks.cache_gigabytes),
            }
            for peaks in report.peaks
        ],
        "artifacts": [
            {
                "artifact": name,
                "bytes": size,
                "runs": [_run_json(run) for run in report.runs if run.artifact == name],
            }
            for name, size in report.artifact_bytes.items()
            if name not in report.failures
        ],
        "failed": [{"artifact": n, "error": reason} for n, reason in report.failures.items()],
    }


def _run_json(run: RunResult) -> dict[str, Any]:
    return {
        "threads": run.threads,
        "load_ms": _short(run.load.p50),
        "stages": [_stage_json(stage) for stage in run.stages],
        "captions": [
            {
                "beams": caption.beams,
                "p50_ms": _short(caption.timing.p50),
                "p95_ms": _short(caption.timing.p95),
                "tokens": _short(caption.tokens),
            }
            for caption in run.captions
        ],
        "batch": run.batch,
        "captions_per_s": _short(run.captions_per_second),
        "peak_bytes": run.peak_bytes,
    }


def _stage_json(stage: StageResult) -> dict[str, Any]:
    ms = stage.timing.p50
    values: dict[str, Any] = {"stage": stage.name, "beams": stage.beams, "ms": _short(ms)}
    roofline = stage.roofline
    if roofline is not None:
        counts = roofline.counts
        values |= {
            "multiply_adds": counts.multiply_adds,
            "int8_multiply_adds": counts.int8_multiply_adds,
            "gops": _short(roofline.gops(ms)),
            "weight_bytes": counts.weight_bytes,
            "activation_bytes": counts.activation_bytes,
            "moved_bytes": counts.moved_bytes,
            "compute_ms": _short(roofline.compute_ms),
            "memory_ms": _short(roofline.memory_ms),
            "cache_ms": _short(roofline.cache_ms),
            "limit_ms": _short(roofline.limit_ms),
            "share": _short(roofline.share(ms)),
            "cached_share": _short(roofline.cached_share(ms)),
            "operators": [
                {"operator": o.operator, "ms": _short(o.ms), "share": _short(o.share)}
                for o in stage.operators
            ],
        }
    return values


def _short(value: float) -> float:
    """Four significant digits: more would be noise."""
    return float(f"{value:.4g}")


def _head(report: Report) -> str:
    machine = report.machine
    details = [f"{machine.cores} cores", *machine.flags]
    if machine.governor is not None:
        details.append(f"governor {machine.governor}")
    if machine.load is not None:
        details.append(f"load {machine.load:g} before the run")
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    return (
        f"{report.name} {report.version}, {report.bytes / MB:.2f} MB, {report.bundle}\n"
        f"{machine.cpu}: {', '.join(details)}\n"
        f"{machine.system}; {versions}\n"
        f"medians of {report.rounds} rounds in turns"
    )


def _photos(report: Report) -> str:
    rows = [["decode and resize", "MB", "ms", "p95"]]
    for photo in report.photos:
        timing = photo.timing
        size = f"{photo.bytes / MB:.2f}"
        rows.append([photo.name, size, f"{timing.p50:.1f}", f"{timing.p95:.1f}"])
    return _table(rows)


def _runs(report: Report) -> str:
    """A column for each artifact at each number of threads."""
    runs = report.runs
    rows = [
        ["", *(run.artifact for run in runs)],
        ["threads", *(str(run.threads) for run in runs)],
        ["MB of the artifact", *(f"{report.artifact_bytes[r.artifact] / MB:.2f}" for r in runs)],
        ["load, ms", *(f"{run.load.p50:.1f}" for run in runs)],
    ]
    # an artifact may be made for a fixed number of beams, and leave some rows empty
    for name in dict.fromkeys(_name(stage) for run in runs for stage in run.stages):
        cells = ({_name(s): f"{s.timing.p50:.3f}" for s in run.stages} for run in runs)
        unit = "ms a photo" if name == BEGIN else "ms a token"
        rows.append([f"{name}, {unit}", *(each.get(name, "") for each in cells)])
    for beams in dict.fromkeys(caption.beams for run in runs for caption in run.captions):
        found = [next((c for c in run.captions if c.beams == beams), None) for run in runs]
        search = _beams(beams)
        rows.append([f"caption, {search}, ms", *(_caption_cell(c) for c in found)])
        rows.append(
            [f"caption, {search}, tokens", *(f"{c.tokens:.1f}" if c else "" for c in found)]
        )
    rate = f"captions a second, batches of {runs[0].batch}"
    rows.append([rate, *(f"{run.captions_per_second:.1f}" for run in runs)])
    peaks = ("?" if r.peak_bytes is None else f"{r.peak_bytes / MB:.1f}" for r in runs)
    rows.append(["peak memory of a caption, MB", *peaks])
    return f"{_table(rows)}\n(captions of a small photo, decoding included: p50 / p95)"


def _caption_cell(caption: CaptionResult | None) -> str:
    return f"{caption.timing.p50:.1f} / {caption.timing.p95:.1f}" if caption else ""


def _roofline(report: Report) -> str:
    head = ["roofline", "threads", "stage", "ms", "M mult-adds", "GOPS", "MB moved"]
    rows = [[*head, "compute ms", "memory ms", "limit ms", "share", "in cache"]]
    for run in report.runs:
        for stage in run.stages:
            roofline, ms = stage.roofline, stage.timing.p50
            if roofline is None:
                continue
            counts = roofline.counts
            figures = [
                *(f"{ms:.3f}", f"{counts.multiply_adds / 1e6:.2f}", f"{roofline.gops(ms):.1f}"),
                *(f"{counts.moved_bytes / MB:.2f}", f"{roofline.compute_ms:.3f}"),
                *(f"{roofline.memory_ms:.3f}", f"{roofline.limit_ms:.3f}"),
                *(f"{roofline.share(ms):.0%}", f"{roofline.cached_share(ms):.0%}"),
            ]
            rows.append([run.artifact, str(run.threads), _name(stage), *figures])
    if len(rows) == 1:
        return ""
    limits = (
        f"peaks at {p.threads} thread{'s' * (p.threads > 1)}: fp32 {p.float_gflops:.0f} GFLOPS,"
        f" int8 {p.int8_gops:.0f} GOPS, copy {p.memory_gigabytes:.1f} GB/s,"
        f" in cache {p.cache_gigabytes:.1f} GB/s"
        for p in report.peaks
    )
    return "\n".join([_table(rows), *limits])


def _rest(report: Report) -> str:
    """Where the time goes in stages far from their limit."""
    lines = []
    for run in report.runs:
        for stage in run.stages:
            if stage.operators:
                where = f"{run.artifact}, threads: {run.threads}, {_name(stage)}"
                slowest = (f"{o.operator} {o.share:.0%}" for o in stage.operators[:TOP])
                lines.append(f"{where}: time goes to {', '.join(slowest)}")
    return "\n".join(lines)


def _name(stage: StageResult) -> str:
    return f"step, {_beams(stage.beams)}" if stage.beams else stage.name


def _beams(count: int) -> str:
    return "greedy" if count == 1 else f"{count} beams"


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells]).rstrip())
    return "\n".join(lines)
