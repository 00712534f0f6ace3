"""The verb: what it prints, where, and with which exit code. No figure is judged."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from nanocap.bundle import Bundle, default_bundle
from nanocap.cli import group
from nanocap.cores import available_cores
from nanocap.errors import OptionError
from nanocap.measure.bench.options import Options


def bench(*arguments: object) -> Result:
    return CliRunner().invoke(group, ["bench", *map(str, arguments)])


def check_run(run: dict[str, Any], beams: list[int]) -> None:
    """Every documented key is there, and makes sense without a look at the clock."""
    assert set(run) == {
        *("threads", "load_ms", "stages", "captions", "batch", "captions_per_s", "peak_bytes")
    }
    assert min(run["load_ms"], run["captions_per_s"], run["peak_bytes"]) > 0
    assert [stage["stage"] for stage in run["stages"]] == ["begin", *("step" for _ in beams)]
    assert [stage["beams"] for stage in run["stages"]] == [0, *beams]
    assert [caption["beams"] for caption in run["captions"]] == beams
    for caption in run["captions"]:
        assert set(caption) == {"beams", "p50_ms", "p95_ms", "tokens"}
        assert 0 < caption["p50_ms"] <= caption["p95_ms"]
        assert caption["tokens"] > 0
    for stage in run["stages"]:
        assert set(stage) == {
            *("stage", "beams", "ms", "multiply_adds", "int8_multiply_adds", "gops"),
            *("weight_bytes", "activation_bytes", "moved_bytes", "compute_ms", "memory_ms"),
            *("cache_ms", "limit_ms", "share", "cached_share", "operators"),
        }
        assert stage["limit_ms"] == max(stage["compute_ms"], stage["memory_ms"])
        assert stage["share"] == pytest.approx(stage["limit_ms"] / stage["ms"], rel=0.01)
        assert bool(stage["operators"]) == (min(stage["share"], stage["cached_share"]) < 0.35)


def test_the_shipped_bundle_as_json() -> None:
    result = bench("--quick", "--repeat", 1, "--json")
    assert result.exit_code == 0, result.output
    (line,) = result.stdout.splitlines()
    values = json.loads(line)
    assert set(values) == {
        *("bundle", "name", "version", "bytes", "machine", "rounds", "photos", "peaks"),
        *("artifacts", "failed"),
    }
    manifest = Bundle(default_bundle()).manifest
    assert (values["name"], values["version"]) == (manifest.name, manifest.version)
    assert values["bytes"] == sum(record.bytes for record in manifest.files.values())
    assert values["rounds"] == 1
    assert values["failed"] == []
    assert values["machine"]["cpu"]
    assert len(values["photos"]) == 2
    assert set(values["photos"][0]) == {"photo", "width", "height", "bytes", "ms", "p95_ms"}
    threads = sorted({1, available_cores()})
    assert [peaks["threads"] for peaks in values["peaks"]] == threads
    rates = {"fp32_gflops", "int8_gops", "copy_gb_per_s", "cache_gb_per_s"}
    assert set(values["peaks"][0]) == {"threads", *rates}
    assert [a["artifact"] for a in values["artifacts"]] == [a.name for a in manifest.artifacts]
    for artifact in values["artifacts"]:
        assert artifact["bytes"] > 1_000_000
        assert [run["threads"] for run in artifact["runs"]] == threads
        for run in artifact["runs"]:
            check_run(run, [1, manifest.search.beams])
    assert "round 1 of 1" in result.stderr, "progress is on standard error"


def test_a_table_for_people(tiny_bundle: Path, photo_files: list[Path]) -> None:
    options = ("--quick", "--repeat", 2, "--threads", 1, "--artifact", "onnx-fp32")
    result = bench(tiny_bundle, *options, "--photo", photo_files[0])
    assert result.exit_code == 0, result.output
    for part in (
        *("tiny 1.0.0", "medians of 2 rounds", str(photo_files[0]), "load, ms"),
        *("begin, ms a photo", "step, greedy, ms a token", "step, 3 beams, ms a token"),
        *("caption, greedy, ms", "caption, 3 beams, ms", "captions a second", "peak memory"),
        *("roofline", "peaks at 1 thread: fp32", "GB/s"),
    ):
        assert part in result.stdout
    assert max(map(len, result.stdout.splitlines())) < 160


def test_a_bundle_that_is_not_there(tmp_path: Path) -> None:
    result = bench(tmp_path / "gone")
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"nanocap: bundle {tmp_path}/gone: there is no such folder")
    assert (result.stdout, result.exit_code) == ("", 1)


def test_an_artifact_that_is_not_there(tiny_bundle: Path) -> None:
    result = bench(tiny_bundle, "--artifact", "onnx-int8")
    assert result.stderr == "nanocap: tiny: has no artifact onnx-int8; it has onnx-fp32\n"
    assert (result.stdout, result.exit_code) == ("", 2)


def test_a_photo_that_is_not_there(tiny_bundle: Path) -> None:
    result = bench(tiny_bundle, "--photo", "gone.jpg")
    assert result.stderr.splitlines()[-1].startswith("nanocap: gone.jpg: there is no such file")
    assert (result.stdout, result.exit_code) == ("", 1)


@pytest.mark.parametrize("arguments", [["--threads", "0"], ["--repeat", "0"], ["a", "b"]])
def test_wrong_usage(arguments: list[str]) -> None:
    result = bench(*arguments)
    assert (result.stdout, result.exit_code) == ("", 2)


def test_an_artifact_that_does_not_run_here_is_named(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "two"))
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["artifacts"].append({**manifest["artifacts"][0], "name": "odd", "backend": "nowhere"})
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    result = bench(bundle, "--quick", "--repeat", 1, "--threads", 1, "--json")
    assert result.exit_code == 1, result.output
    values = json.loads(result.stdout)
    assert [artifact["artifact"] for artifact in values["artifacts"]] == ["onnx-fp32"]
    (failed,) = values["failed"]
    assert failed["artifact"] == "odd"
    assert "no backend 'nowhere'" in failed["error"]
    assert "nanocap: odd: left out: " in result.stderr
    alone = bench(bundle, "--quick", "--artifact", "odd")
    assert "no backend 'nowhere'" in alone.stderr
    assert (alone.stdout, alone.exit_code) == ("", 1)


def test_an_artifact_of_other_beams_is_measured_with_those(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "two"))
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["artifacts"].append({**manifest["artifacts"][0], "name": "fixed", "beams": [2, 2]})
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    options = ("--quick", "--repeat", 1, "--threads", 1)
    result = bench(bundle, *options, "--json")
    assert result.exit_code == 0, result.output
    first, fixed = json.loads(result.stdout)["artifacts"]
    check_run(first["runs"][0], [1, 3])
    check_run(fixed["runs"][0], [2])
    table = bench(bundle, *options, "--report", tmp_path / "page")
    assert "caption, 2 beams, ms" in table.stdout
    assert (tmp_path / "page" / "index.html").exists()


def test_a_bare_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    result = bench("--quick")
    (line,) = result.stderr.splitlines()
    assert line.startswith("nanocap: nanocap bench needs the package onnx ")
    assert line.endswith("run pip install 'nanocap[eval]'")
    assert (result.stdout, result.exit_code) == ("", 1)


def test_threads_of_a_call_from_python() -> None:
    for threads in ((), (1, 0)):
        with pytest.raises(OptionError, match="threads must be numbers from 1 on"):
            Options(default_bundle(), threads)
