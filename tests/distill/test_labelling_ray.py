"""Labelling on Ray: two workers write what one process writes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess, run

import numpy as np
import pytest
from PIL import Image

from nanocap.distill.labelling.shards import DECISIONS

pytestmark = pytest.mark.slow  # a Ray of its own takes ten seconds to start


def noise(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def rows(folder: Path) -> dict[str, bytes]:
    """What decides: the rows and the log of decisions."""
    paths = sorted((*folder.glob("*.tar"), *folder.glob(f"*.{DECISIONS}")))
    return {path.name: path.read_bytes() for path in paths}


def label(*arguments: str | Path) -> CompletedProcess[str]:
    """In a process of its own: when Ray is used after it was shut down, it ends the process."""
    command = [sys.executable, "-m", "nanocap", "label", *map(str, arguments)]
    return run(command, capture_output=True, text=True, timeout=300)


def test_two_workers_make_the_files_of_one_process(
    checkpoints: list[Path],
    shards: Callable[[dict[str, Image.Image]], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # paths are relative to where the command was given
    pattern = Path(shards({f"p{n:02}": noise(n) for n in range(10)})).relative_to(tmp_path)
    student = checkpoints[0].relative_to(tmp_path)
    given = ["--teacher", f"student:{student}", "--images", pattern, "--adapt", student]
    given += ["--batch-size", "2", "--shard-size", "3", "--device", "cpu"]
    assert label(*given, "--out", "whole").returncode == 0
    done = label(*given, "--out", "on-ray", "--engine", "ray", "--workers", "2", "--json")
    assert done.returncode == 0, done.stderr
    assert len(rows(tmp_path / "whole")) == 8
    assert rows(tmp_path / "on-ray") == rows(tmp_path / "whole")
    plans = [json.loads((tmp_path / one / "plan.json").read_text()) for one in ("on-ray", "whole")]
    assert plans[0] == plans[1]
    manifests = [
        json.loads((tmp_path / one / "manifest.json").read_text()) for one in ("on-ray", "whole")
    ]
    for name in ("complete", "rows", "levels", "origins", "files"):
        assert manifests[0][name] == manifests[1][name]

    # one file is lost, and the labelling goes on: here or there
    (tmp_path / "on-ray" / "labels-00002.tar").unlink()
    assert label(*given, "--out", "on-ray", "--engine", "ray").returncode == 0
    assert rows(tmp_path / "on-ray") == rows(tmp_path / "whole")

    # an order that differs is refused by the actors, and by whoever finds nothing left to do
    (tmp_path / "on-ray" / "labels-00002.tar").unlink()
    for _ in range(2):
        other = label(*given, "--out", "on-ray", "--engine", "ray", "--captions", "2")
        assert other.returncode != 0
        assert "on-ray: holds labels made otherwise (captions was 5, is 2)" in other.stderr
        assert label(*given, "--out", "on-ray").returncode == 0
