"""ExecuTorch against ONNX Runtime: `begin` and a greedy step, same precision, one thread, in turns.

Of each precision that a bundle holds for both, the calls of the runtime's own engines are timed on
the same photo, one after the other. Let the machine be quiet: ExecuTorch loses more to other work,
its median then more than doubles. The sizes of all artifacts are printed as well.

    nanocap convert student.safetensors --out everything --all --photos photos/
    python tests/benchmarks/backends.py everything
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from nanocap.bundle import Bundle
from nanocap.measure.bench.photos import draw_photo
from nanocap.measure.bench.stages import Setup

ROUNDS = 60
BACKENDS = ("onnx", "executorch")


def milliseconds(call: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - start)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--tokens", type=int, help="visual tokens  [the fewest that there are]")
    options = parser.parse_args()
    bundle, photos = Bundle(options.bundle), [draw_photo(640, 480)]
    artifacts = bundle.manifest.artifacts
    tokens = options.tokens or min(artifact.visual_tokens for artifact in artifacts)
    some = {(a.backend, a.precision): a for a in artifacts if a.visual_tokens == tokens}
    shared = [p for backend, p in some if backend == BACKENDS[1] and (BACKENDS[0], p) in some]
    print("| precision | | ONNX Runtime, ms | ExecuTorch, ms | ratio |\n|---|---|---|---|---|")
    for precision in shared:
        first, second = (Setup(bundle, some[backend, precision], 1, photos) for backend in BACKENDS)
        for stage in first.stages[:2]:
            one, other = first.call(*stage), second.call(*stage)
            pairs = [(milliseconds(one), milliseconds(other)) for _ in range(ROUNDS)]
            ratio = statistics.median(theirs / ours for ours, theirs in pairs)
            ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
            print(f"| {precision} | {stage[0]} | {ours:.2f} | {theirs:.2f} | {ratio:.2f} |")
    print("\n| artifact | MB |\n|---|---|")
    for (backend, precision), artifact in some.items():
        size = sum(bundle.manifest.files[path].bytes for path in artifact.files.values())
        print(f"| {backend}-{precision} | {size / 1e6:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
