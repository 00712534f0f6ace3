"""Metrics that survive a kill."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from nanocap.distill.training.journal import Journal


def fill(folder: Path) -> Path:
    journal = Journal(folder, 0, 0)
    for stage, steps in ((0, 5), (1, 4)):
        for step in range(steps):
            journal.add(stage=stage, step=step, loss=10.0 - step)
    return journal.path


def places(path: Path) -> list[tuple[int, int]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [(line["stage"], line["step"]) for line in lines]


def test_a_line_a_step(tmp_path: Path) -> None:
    path = fill(tmp_path)
    assert path == tmp_path / "metrics.jsonl"
    assert places(path) == [(0, step) for step in range(5)] + [(1, step) for step in range(4)]
    assert json.loads(path.read_text().splitlines()[2]) == {"stage": 0, "step": 2, "loss": 8.0}


@pytest.mark.parametrize(("stage", "step", "left"), [(1, 2, 7), (1, 0, 5), (0, 3, 3), (0, 0, 0)])
def test_cut_back_to_the_checkpoint(tmp_path: Path, stage: int, step: int, left: int) -> None:
    whole = places(fill(tmp_path))
    journal = Journal(tmp_path, stage, step)
    assert places(journal.path) == whole[:left]
    journal.add(stage=stage, step=step, loss=1.0)
    assert places(journal.path) == [*whole[:left], (stage, step)]


@pytest.mark.parametrize("cut", range(1, 45))
def test_a_kill_inside_a_line(tmp_path: Path, cut: int) -> None:
    path = fill(tmp_path)
    text = path.read_text()
    path.write_text(text[: len(text) - cut])
    journal = Journal(tmp_path, 1, 3)
    journal.add(stage=1, step=3, loss=7.0)
    found = places(path)
    assert found == sorted(set(found))  # whole lines, none twice
    assert found[-1] == (1, 3)


def test_resuming_replaces_the_file_whole(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / ".metrics.jsonl.partial").write_text("left by a kill")
    Journal(tmp_path, 1, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_curves_are_a_picture(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0, 0)
    journal.draw()
    assert not (tmp_path / "curves.png").exists()  # nothing to show yet
    for step in range(5):
        journal.add(stage=0, step=step, loss=5.0 - step)
    journal.draw()
    with Image.open(tmp_path / "curves.png") as image:
        narrow = image.size
    journal.add(stage=1, step=0, loss=1.0, reward=0.5, cider=40.0)
    journal.draw()
    with Image.open(tmp_path / "curves.png") as image:
        assert image.width > 2 * narrow[0]  # a panel each for loss, reward and CIDEr
    assert not list(tmp_path.glob("*partial*"))
