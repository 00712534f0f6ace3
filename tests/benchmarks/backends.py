"""ExecuTorch against ONNX Runtime: encoder and decoder step, same precision, one thread, in turns.

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

import numpy as np

from nanocap.bundle import Bundle
from nanocap.bundle.manifest import Artifact
from nanocap.runtime.engines import Engine, load_engine

ROUNDS = 60
POSITION = 5  # of the step that is timed
BACKENDS = ("onnx", "executorch")


def calls(bundle: Bundle, artifact: Artifact) -> dict[str, Callable[[], object]]:
    """What is timed of an artifact."""
    files = {path: bundle.read(path) for path in artifact.files.values()}
    engine: Engine = load_engine(artifact, files, 1)
    sizes, side = bundle.manifest.sizes, bundle.manifest.image.size
    pixels = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    cross = engine.encode(pixels)
    shape = (sizes.layers, 1, sizes.max_tokens, sizes.cache_width)
    cache = (np.zeros(shape, np.float32), np.zeros(shape, np.float32))
    tokens = np.zeros((1, 1), np.int64)
    return {
        "encoder": lambda: engine.encode(pixels),
        "token": lambda: engine.step(tokens, POSITION, cross, cache),
    }


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
    bundle = Bundle(options.bundle)
    artifacts = bundle.manifest.artifacts
    tokens = options.tokens or min(artifact.visual_tokens for artifact in artifacts)
    some = {(a.backend, a.precision): a for a in artifacts if a.visual_tokens == tokens}
    shared = [p for backend, p in some if backend == BACKENDS[1] and (BACKENDS[0], p) in some]
    print("| precision | | ONNX Runtime, ms | ExecuTorch, ms | ratio |\n|---|---|---|---|---|")
    for precision in shared:
        first, second = (calls(bundle, some[backend, precision]) for backend in BACKENDS)
        for what in first:
            pairs = [(milliseconds(first[what]), milliseconds(second[what])) for _ in range(ROUNDS)]
            ratio = statistics.median(theirs / ours for ours, theirs in pairs)
            ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
            print(f"| {precision} | {what} | {ours:.2f} | {theirs:.2f} | {ratio:.2f} |", flush=True)
    print("\n| artifact | MB |\n|---|---|")
    for (backend, precision), artifact in some.items():
        size = sum(bundle.manifest.files[path].bytes for path in artifact.files.values())
        print(f"| {backend}-{precision} | {size / 1e6:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
