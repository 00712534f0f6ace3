"""Two checkouts of nanocap caption the same photos in turns, one thread each: is the newer faster?

Each runs in a process of its own with its own bundled model. Times are CPU time, and the ratio is
the median over pairs, so that a busy machine matters little.

    git worktree add ../before 3374cca
    python tests/benchmarks/versions.py ../before . --photos PHOTOS
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from nanocap.convert.photos import find_photos, load_photos
from nanocap.image.rule import ImageRule

WAYS = {"greedy": "1", "3 beams": "3", "batches of 8": "batch"}  # what a process is asked for
PHOTOS, ROUNDS = 16, 24
CHILD = """
import sys, time
import numpy as np
from nanocap import Captioner
captioner = Captioner(threads=1)
photos = list(np.load(sys.argv[1]))
print(flush=True)
for line in sys.stdin:
    start = time.process_time()
    if line.strip() == "batch":
        captioner(photos, batch_size=8)
    else:
        for photo in photos:
            captioner(photo, beams=int(line))
    print((time.process_time() - start) / len(photos), flush=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkouts", type=Path, nargs=2, help="the older and the newer")
    parser.add_argument("--photos", type=Path, nargs="+", required=True)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        pixels = Path(folder) / "photos.npy"
        np.save(pixels, load_photos(find_photos(options.photos), PHOTOS, ImageRule()))
        children = [start(checkout, pixels) for checkout in options.checkouts]
        print("| | older, ms | newer, ms | ratio |\n|---|---|---|---|")
        for name, way in WAYS.items():
            pairs = []
            for turn in range(ROUNDS + 1):
                order = (0, 1) if turn % 2 else (1, 0)
                times = {which: ask(children[which], way) for which in order}
                pairs.append((times[0], times[1]))
            del pairs[0]  # the first runs allocate
            older, newer = (1000 * statistics.median(column) for column in zip(*pairs, strict=True))
            ratio = statistics.median(new / old for old, new in pairs)
            print(f"| {name} | {older:.1f} | {newer:.1f} | {ratio:.2f} |", flush=True)
        for child in children:
            child.kill()


def start(checkout: Path, pixels: Path) -> subprocess.Popen[str]:
    """A process of a checkout that has loaded its model."""
    environment = {**os.environ, "PYTHONPATH": str(checkout.resolve()), "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(pixels)],
        env=environment,
        cwd=checkout,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    child.stdout.readline()
    return child


def ask(child: subprocess.Popen[str], way: str) -> float:
    """Seconds of CPU time a photo."""
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(f"{way}\n")
    child.stdin.flush()
    return float(child.stdout.readline())


if __name__ == "__main__":
    main()
