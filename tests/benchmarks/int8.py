"""int8 against fp32 at one thread: `begin`, and one step with the bundle's beams.

Both run in turns in the same process on the same photo, so the ratio stands on any machine.
Exits with 1 where int8 is not the faster one.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from nanocap.bundle import Bundle, default_bundle
from nanocap.measure.bench.photos import draw_photo
from nanocap.measure.bench.stages import Setup

WARM_UP = 5
ROUNDS = 60


def setup(bundle: Path, precision: str) -> Setup:
    """The artifact with that precision in a bundle, open."""
    opened = Bundle(bundle)
    some = [a for a in opened.manifest.artifacts if (a.backend, a.precision) == ("onnx", precision)]
    if not some:
        sys.exit(f"int8.py: {bundle} holds no {precision} artifact; name a bundle that does")
    return Setup(opened, some[0], 1, [draw_photo(640, 480)])


def milliseconds(run: Callable[[], object]) -> float:
    """Wall-clock milliseconds of one call."""
    start = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - start)


def compare(name: str, fp32: Callable[[], object], int8: Callable[[], object]) -> bool:
    """Print the medians of `ROUNDS` runs in turns; whether int8 was the faster."""
    for _ in range(WARM_UP):
        fp32(), int8()
    pairs = [(milliseconds(fp32), milliseconds(int8)) for _ in range(ROUNDS)]
    fp32_ms, int8_ms = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = int8_ms / fp32_ms
    print(f"{name:5} fp32 {fp32_ms:7.2f} ms  int8 {int8_ms:7.2f} ms  int8/fp32 {ratio:.2f}")
    return ratio < 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fp32", type=Path, required=True, help="folder of a bundle with fp32")
    parser.add_argument("--int8", type=Path, default=default_bundle(), help="(default: nano-s)")
    options = parser.parse_args()
    fp32, int8 = setup(options.fp32, "fp32"), setup(options.int8, "int8")
    faster = [
        compare(stage[0], fp32.call(*stage), int8.call(*stage))
        for stage in (fp32.stages[0], fp32.stages[-1])
    ]
    return int(not all(faster))


if __name__ == "__main__":
    sys.exit(main())
