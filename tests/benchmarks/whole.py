"""One graph from pixels to ids against the step-by-step engine: the same text, and the time.

Both caption the same photos with the bundle's search at one thread, in turns in one process, from
decoded pixels of the model's own size (so that neither resizes) to text. Exits with 1 where a text
differs, or the one graph is slower by more than the limit.

    python tests/benchmarks/whole.py --bundle BUNDLE --photos PHOTOS
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from nanocap import Captioner
from nanocap.bundle import Bundle, default_bundle
from nanocap.convert.graphs.whole_caption import whole_caption
from nanocap.convert.photos import find_photos, load_photos

SAMPLES = Path(__file__).parents[2] / "samples" / "photos"
ROUNDS = 15

Pixels = npt.NDArray[np.uint8]
Caption = Callable[[Pixels], str]


def one_graph(bundle: Bundle, artifact: str) -> Caption:
    """What captions by one call of ONNX Runtime."""
    (chosen,) = (one for one in bundle.manifest.artifacts if one.name == artifact)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        whole_caption(bundle, chosen).SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
    )
    pieces = json.loads(session.get_modelmeta().custom_metadata_map["pieces"])

    def caption(pixels: Pixels) -> str:
        (ids,) = session.run(["ids"], {"image": pixels})
        return "".join(pieces[index] for index in ids).replace("\u2581", " ").strip()

    return caption


def step_by_step(bundle: Bundle, artifact: str) -> Caption:
    """What captions as the runtime does."""
    captioner = Captioner(bundle, artifact=artifact, threads=1)
    return lambda pixels: captioner(pixels).text.rstrip(".").lower()


def milliseconds(caption: Caption, pixels: Pixels) -> float:
    """Wall-clock milliseconds of one caption."""
    start = time.perf_counter()
    caption(pixels)
    return 1000 * (time.perf_counter() - start)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, default=default_bundle(), help="  [the shipped one]")
    parser.add_argument("--artifact", help="[its first]")
    parser.add_argument("--photos", type=Path, nargs="+", default=[SAMPLES])
    parser.add_argument("--count", type=int, default=50, help="photos at most (default: 50)")
    parser.add_argument("--limit", type=float, default=1.05, help="largest ratio (default: 1.05)")
    options = parser.parse_args()

    bundle = Bundle(options.bundle)
    artifact = options.artifact or bundle.manifest.artifacts[0].name
    photos = load_photos(find_photos(options.photos), options.count, bundle.manifest.image)
    whole, steps = one_graph(bundle, artifact), step_by_step(bundle, artifact)
    differ = [index for index, pixels in enumerate(photos) if whole(pixels) != steps(pixels)]
    rounds = [photos[index % len(photos)] for index in range(max(ROUNDS, len(photos)))]
    pairs = [(milliseconds(whole, each), milliseconds(steps, each)) for each in rounds]
    ratio = statistics.median(one / other for one, other in pairs)
    whole_ms, steps_ms = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"{artifact}: {len(photos)} photos, {len(differ)} texts differ")
    print(f"one graph {whole_ms:.2f} ms, step by step {steps_ms:.2f} ms, ratio {ratio:.2f}")
    return int(bool(differ) or ratio > options.limit)


if __name__ == "__main__":
    sys.exit(main())
