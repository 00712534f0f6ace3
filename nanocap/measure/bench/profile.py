"""Where a graph's time goes, by operator, as ONNX Runtime's own profiler tells it."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanocap.measure.bench.graphs import Feeds, open_session

BETWEEN = "(between operators)"  # the runtime's own work, and the profiler's
SUFFIX = "_kernel_time"


@dataclass(frozen=True)
class OperatorTime:
    """All operators of one type in a run.

    Attributes:
        operator: the type, in the graph that ONNX Runtime made of the file.
        ms: milliseconds a run.
        share: of the whole run, 0 to 1.
    """

    operator: str
    ms: float
    share: float


def profile(
    graph: bytes, feeds: Feeds, threads: int, runs: int, entries: Mapping[str, str] | None = None
) -> tuple[OperatorTime, ...]:
    """The mean over `runs` runs after a first one, the slowest type first.

    `entries` are those of the artifact's session.

    The profiler writes into a temporary folder, which is removed.
    """
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(graph, threads, str(Path(folder) / "profile"), entries)
        for _ in range(runs + 1):
            session.run(None, dict(feeds))
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return summarize(events)


def summarize(events: list[dict[str, Any]]) -> tuple[OperatorTime, ...]:
    """Times by operator from the events of ONNX Runtime's profile, the first run left out."""
    whole = sorted(
        (e["ts"], e["dur"]) for e in events if e["cat"] == "Session" and e["name"] == "model_run"
    )
    (first_ts, first_us), counted = whole[0], whole[1:]
    totals: dict[str, float] = defaultdict(float)
    for event in events:
        is_kernel = event["cat"] == "Node" and event["name"].endswith(SUFFIX)
        if is_kernel and event["ts"] > first_ts + first_us:
            totals[event["args"]["op_name"]] += event["dur"]
    run_us = sum(us for _, us in counted)
    totals[BETWEEN] = max(0.0, run_us - sum(totals.values()))
    return tuple(
        OperatorTime(operator, us / 1000 / len(counted), us / run_us)
        for operator, us in sorted(totals.items(), key=lambda item: -item[1])
    )
