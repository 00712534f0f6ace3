"""Start to sentence for one photo, as a multiple of importing what the runtime stands on.

A whole process each time: `nanocap caption PHOTO` against
`python -c "import numpy, onnxruntime, PIL.Image"`, in turns, so that a busy machine slows both.
Exits with 1 above the limit.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

PHOTO = Path(__file__).parents[2] / "samples" / "photos" / "cat.jpg"
IMPORTS = [sys.executable, "-c", "import numpy, onnxruntime, PIL.Image"]


def seconds(command: list[str]) -> float:
    """Wall-clock seconds of one run of `command`; raises CalledProcessError if it fails."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photo", type=Path, default=PHOTO)
    parser.add_argument("--runs", type=int, default=9, help="pairs of runs (default: 9)")
    parser.add_argument("--limit", type=float, default=1.9, help="largest ratio (default: 1.9)")
    options = parser.parse_args()

    script = Path(sysconfig.get_path("scripts")) / "nanocap"
    caption = [str(script), "caption", str(options.photo)]
    seconds(IMPORTS), seconds(caption)  # the first pair fills the disk cache and is not counted
    pairs = [(seconds(IMPORTS), seconds(caption)) for _ in range(options.runs)]
    imports_s, caption_s = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = caption_s / imports_s
    print(f"imports alone      {imports_s:.3f} s (median of {options.runs})")
    print(f"start to sentence  {caption_s:.3f} s (median of {options.runs})")
    print(f"ratio              {ratio:.2f} (limit {options.limit})")
    return int(ratio > options.limit)


if __name__ == "__main__":
    sys.exit(main())
