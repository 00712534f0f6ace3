"""The page of `nanocap parity`: what each artifact lost, over what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nanocap.measure.metrics.measures import Interval
from nanocap.measure.report.page import render, write_page
from nanocap.measure.report.plots.bubbles import Bubble, bubble_plot
from nanocap.measure.report.plots.intervals import Row, interval_plot

HEAD = (
    *("Artifact", "Visual tokens", "MB", "Largest logit difference", "Same captions", "CIDEr"),
    *("Difference", "ms a caption", "Peak MB"),
)


def write_parity_page(folder: Path, report: Mapping[str, Any]) -> Path:
    """Write `folder/index.html`.

    Args:
        report: as `nanocap parity --json` prints it.
    Raises:
        NanocapError: the page cannot be written.
    """
    artifacts = report["artifacts"]
    bubbles = [
        Bubble(name, one["ms"], one["bytes"], one["cider"]["value"], place)
        for place, (name, one) in enumerate(artifacts.items())
    ]
    lost = {n: _interval(one["cider_difference"]) for n, one in artifacts.items() if _is_other(one)}
    lines = [Row(name, (one,), not one.excludes_zero) for name, one in lost.items()]
    label = f"CIDEr less that of {report['against']}, with its 95 % interval, by artifact"
    values = {
        "title": f"{report['name']} {report['version']}",
        "report": report,
        "names": list(artifacts),
        "bubbles": bubble_plot(bubbles, "CIDEr"),
        "lost": interval_plot(lines, label) if lines else "",
        "head": HEAD,
        "rows": [_cells(name, one) for name, one in artifacts.items()],
        "differences": [
            [name, told] for name, one in artifacts.items() for told in one["first_differences"]
        ],
    }
    return write_page(folder, render("parity.html", values))


def _is_other(artifact: Mapping[str, Any]) -> bool:
    """Whether it was compared: not the reference itself."""
    return "cider_difference" in artifact


def _interval(values: Mapping[str, float]) -> Interval:
    return Interval(values["value"], values["low"], values["high"])


def _cells(name: str, one: Mapping[str, Any]) -> Sequence[str]:
    parity, lost, peak = ("", ""), "", one["peak_bytes"]
    if _is_other(one):
        parity = (f"{one['max_logit_difference']:.2g}", f"{one['captions_equal']:.1%}")
        found = _interval(one["cider_difference"])
        lost = f"{found.value:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"
    return (
        name,
        str(one["visual_tokens"]),
        f"{one['bytes'] / 1e6:.2f}",
        *parity,
        f"{one['cider']['value']:.2f}",
        lost,
        f"{one['ms']:.1f}",
        "?" if peak is None else f"{peak / 1e6:.0f}",
    )
