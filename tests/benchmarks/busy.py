"""A step of `nanocap distill` beside another process that is busy, as a multiple of a quiet one.

The command trains on drawn photos; while it does, a process that only counts is let run and held,
in turns of some steps, so that other work on the machine disturbs both alike. All of it stays on
two cores, since on many a single busy one is hardly felt. Exits with 1 above the limit.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from PIL import Image, ImageDraw

CORES = 2
BUSY = [sys.executable, "-c", "while True: pass"]
COLOURS = ("red", "green", "blue", "yellow", "black", "white")
FIRST = 3  # steps of a turn that are not counted: the one in which it began, and what is warm
RECIPE = """
name = "busy"
preset = "nano-s"
imagenet = ""

[data]

[[data.sources]]
name = "drawn"
table = "captions.jsonl"

[[stages]]
name = "all"
kind = "supervised"
steps = {steps}
train = {train}
batch = {batch}
views = 1
evaluate = 0
checkpoint = 100000
"""


def draw_photos(folder: Path) -> None:
    """Photos with captions, as a table."""
    lines = []
    for ground, colour in product(COLOURS, COLOURS):
        name = f"{colour}-on-{ground}.png"
        image = Image.new("RGB", (224, 224), ground)
        ImageDraw.Draw(image).ellipse((60, 60, 160, 160), colour)
        image.save(folder / name)
        captions = [f"a {colour} ball on a {ground} wall", f"something {colour} before {ground}"]
        lines.append(json.dumps({"image": name, "captions": captions}))
    (folder / "captions.jsonl").write_text("\n".join(lines), encoding="utf-8")


def step_seconds(journal: Path, process: subprocess.Popen[bytes], log: Path) -> Iterator[float]:
    """Seconds of each step, as the run writes them down."""
    read = 0
    while process.poll() is None or read < _lines(journal):
        if read == _lines(journal):
            time.sleep(0.02)
            continue
        line = journal.read_text(encoding="utf-8").splitlines()[read]
        read += 1
        yield float(json.loads(line)["seconds"])
    if process.returncode:
        sys.exit(f"busy.py: nanocap distill failed: {log.read_text()}")


def _lines(journal: Path) -> int:
    return journal.read_text(encoding="utf-8").count("\n") if journal.exists() else 0


def measure(folder: Path, options: argparse.Namespace) -> tuple[float, float]:
    """Median seconds of a step, quiet and busy."""
    draw_photos(folder)
    steps = 2 * options.turns * options.steps
    train = ["decoder", "encoder", "upper", *(["lower"] if options.pixels else [])]
    recipe = folder / "recipe.toml"
    recipe.write_text(
        RECIPE.format(
            steps=steps,
            train=json.dumps(train),
            batch=options.batch,
        )
    )
    out = folder / "run"
    command = [sys.executable, "-m", "nanocap", "distill", str(recipe), "--out", str(out)]
    log = folder / "log"
    with log.open("wb") as printed:
        training = subprocess.Popen([*command, "--precision", "fp32"], stderr=printed)
    other = subprocess.Popen(BUSY)
    counted: dict[bool, list[float]] = {False: [], True: []}
    try:
        other.send_signal(signal.SIGSTOP)
        for step, seconds in enumerate(step_seconds(out / "metrics.jsonl", training, log)):
            turn, place = divmod(step, options.steps)
            if place >= FIRST:
                counted[turn % 2 == 1].append(seconds)
            if place == options.steps - 1:
                other.send_signal(signal.SIGSTOP if turn % 2 else signal.SIGCONT)
    finally:
        other.kill()
        training.kill()
    return statistics.median(counted[False]), statistics.median(counted[True])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10, help="steps of a turn (default: 10)")
    parser.add_argument("--turns", type=int, default=3, help="turns of each kind (default: 3)")
    parser.add_argument("--batch", type=int, default=16, help="photos a step (default: 16)")
    parser.add_argument("--pixels", action="store_true", help="train the whole trunk, no maps")
    parser.add_argument("--limit", type=float, default=2.5, help="largest ratio (default: 2.5)")
    options = parser.parse_args()
    if options.steps <= FIRST:
        parser.error(f"--steps must be above {FIRST}")

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    with tempfile.TemporaryDirectory() as folder:
        quiet, busy = measure(Path(folder), options)
    ratio = busy / quiet
    print(f"quiet step  {quiet:.3f} s (median)")
    print(f"busy step   {busy:.3f} s (median)")
    print(f"ratio       {ratio:.2f} (limit {options.limit})")
    return int(ratio > options.limit)


if __name__ == "__main__":
    sys.exit(main())
