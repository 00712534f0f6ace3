"""Where the time goes, from ONNX Runtime's profile."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

from nanocap.bundle import Bundle
from nanocap.measure.bench.photos import draw_photo
from nanocap.measure.bench.profile import BETWEEN, OperatorTime, profile, summarize
from nanocap.measure.bench.stages import BEGIN, Setup


def run(ts: int, us: int) -> dict[str, Any]:
    return {"cat": "Session", "name": "model_run", "ts": ts, "dur": us}


def kernel(ts: int, us: int, operator: str) -> dict[str, Any]:
    name = f"node_{operator}_kernel_time"
    return {"cat": "Node", "name": name, "ts": ts, "dur": us, "args": {"op_name": operator}}


def test_the_first_run_is_left_out_and_the_rest_is_averaged() -> None:
    events = [
        {"cat": "Session", "name": "session_initialization", "ts": 0, "dur": 900},
        *(kernel(1010, 500, "Conv"), run(1000, 800)),
        *(kernel(2010, 60, "Conv"), kernel(2080, 20, "Add"), run(2000, 100)),
        *(kernel(3010, 40, "Conv"), kernel(3060, 20, "Conv"), kernel(3090, 20, "Add")),
        run(3000, 100),
    ]
    assert summarize(events) == (
        OperatorTime("Conv", pytest.approx(0.060), pytest.approx(0.6)),
        OperatorTime("Add", pytest.approx(0.020), pytest.approx(0.2)),
        OperatorTime(BETWEEN, pytest.approx(0.020), pytest.approx(0.2)),
    )


def test_a_real_graph_leaves_nothing_behind(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, here = Bundle(tiny_bundle), tmp_path / "temporary"
    here.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(here))
    monkeypatch.chdir(tmp_path)
    setup = Setup(bundle, bundle.manifest.artifacts[0], 1, [draw_photo(64, 48)])
    times = profile(*setup.graph(BEGIN), threads=1, runs=3)
    assert {"MatMul", "ReduceMean", BETWEEN} <= {time.operator for time in times}
    shares = [time.share for time in times]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1.0)
    assert list(here.iterdir()) == []
    assert list(tmp_path.iterdir()) == [here]
