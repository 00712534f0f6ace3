"""int8 against fp32 at one thread: the encoder, and one decoder step at three beams.

Both graphs run in turns in the same process on the same input, so the ratio stands on any machine.
Exits with 1 where int8 is not the faster one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

BEAMS = 3
POSITION = 10  # a step in the middle of a sentence
WARM_UP = 5
ROUNDS = 60


class Graphs:
    """The encoder and the decoder of the artifact with that precision in a bundle's folder."""

    def __init__(self, bundle: Path, precision: str) -> None:
        manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
        files = [a["files"] for a in manifest["artifacts"] if a["precision"] == precision]
        if not files:
            sys.exit(f"int8.py: {bundle} holds no {precision} artifact; name a bundle that does")
        self.size: int = manifest["image"]["size"]
        self.dimensions: dict[str, Any] = manifest["dimensions"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.encoder, self.decoder = (
            onnxruntime.InferenceSession(
                bundle / files[0][part], options, providers=["CPUExecutionProvider"]
            )
            for part in ("encoder", "decoder")
        )

    def encoder_run(self) -> Callable[[], list[Any]]:
        """A call that encodes one photo."""
        shape = (1, self.size, self.size, 3)
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        return lambda: self.encoder.run(["cross_keys", "cross_values"], {"pixels": pixels})

    def decoder_run(self) -> Callable[[], list[Any]]:
        """A call that makes one decoder step for one photo at `BEAMS` beams."""
        cross_keys, cross_values = self.encoder_run()()
        d = self.dimensions
        cache = np.zeros((d["layers"], BEAMS, d["max_tokens"], d["width"]), np.float32)
        feeds = {
            "tokens": np.full((1, BEAMS), 10, np.int64),
            "position": np.array([POSITION], np.int64),
            "cross_keys": cross_keys,
            "cross_values": cross_values,
            "keys": cache,
            "values": cache,
        }
        return lambda: self.decoder.run(["logits", "new_keys", "new_values"], feeds)


def milliseconds(run: Callable[[], list[Any]]) -> float:
    """Wall-clock milliseconds of one call."""
    start = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - start)


def compare(name: str, fp32: Callable[[], list[Any]], int8: Callable[[], list[Any]]) -> bool:
    """Print the medians of `ROUNDS` runs in turns; whether int8 was the faster."""
    for _ in range(WARM_UP):
        fp32(), int8()
    pairs = [(milliseconds(fp32), milliseconds(int8)) for _ in range(ROUNDS)]
    fp32_ms, int8_ms = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = int8_ms / fp32_ms
    print(f"{name:13} fp32 {fp32_ms:7.2f} ms  int8 {int8_ms:7.2f} ms  int8/fp32 {ratio:.2f}")
    return ratio < 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fp32", type=Path, required=True, help="folder of a bundle with fp32")
    parser.add_argument("--int8", type=Path, help="folder of a bundle with int8 (default: nano-s)")
    options = parser.parse_args()
    if options.int8 is None:
        import nanocap

        options.int8 = Path(nanocap.__file__).parent / "models" / "nano-s"

    fp32, int8 = Graphs(options.fp32, "fp32"), Graphs(options.int8, "int8")
    faster = [
        compare("encoder", fp32.encoder_run(), int8.encoder_run()),
        compare("decoder step", fp32.decoder_run(), int8.decoder_run()),
    ]
    return int(not all(faster))


if __name__ == "__main__":
    sys.exit(main())
