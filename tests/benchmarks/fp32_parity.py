"""fp32 of every backend against eager: logits along eager's captions, and the captions themselves.

Each backend's fp32 artifact is made from the checkpoint and run as the runtime runs it. Both sides
are fed eager's greedy caption piece by piece; a caption is the same where no piece differs, and
then it is also what the backend says when it is left to itself. Core ML runs on macOS only:
elsewhere what was saved is run by the tests' interpreter of ML programs.

    python -P tests/benchmarks/fp32_parity.py student.safetensors --photos 'DATA/coco-human-000.tar'

Exits with 1 where a backend is not eager: logits to 1e-3, every caption the same.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nanocap.convert.checkpoint import Checkpoint, read_checkpoint
from nanocap.convert.drawn import drawn_pictures
from nanocap.convert.exporters import Exported, Job, load_exporter
from nanocap.convert.parity import LOGITS_TOLERANCE, EagerEngine, Parity, compare
from nanocap.convert.photos import find_photos, load_photos
from nanocap.manifest import DecodingDefaults
from nanocap.precisions import BACKENDS
from nanocap.runtime.engines import Engine, load_engine
from nanocap.runtime.engines.coreml import CoreMLEngine, Model, write_packages

TESTS = Path(__file__).parents[1]
CHECKED = 2  # drawn pictures that the exporter itself compares on

OpenPackage = Callable[[Path], Model]


def measure(
    checkpoint: Checkpoint,
    backend: str,
    pixels: npt.NDArray[np.uint8],
    open_package: OpenPackage,
) -> Parity:
    """The backend's fp32 beside eager.

    Args:
        pixels: uint8 [photos, size, size, 3].
        open_package: what runs an `.mlpackage` where Core ML does not.
    """
    decoding = DecodingDefaults()
    few = drawn_pictures(CHECKED, checkpoint.rule().size)
    job = Job(checkpoint.probe(few, decoding), pixels[:0], ids=checkpoint.ids())
    (made,) = load_exporter(backend).export(checkpoint.student, ["fp32"], job)
    with tempfile.TemporaryDirectory() as folder:
        engine = _engine(made, Path(folder), open_package)
        return compare(EagerEngine(checkpoint.student), engine, checkpoint.probe(pixels, decoding))


def is_exact(parity: Parity) -> bool:
    """Whether it computes the student as trained."""
    return parity.max_logit_difference <= LOGITS_TOLERANCE and parity.captions_equal == 1


def _engine(made: Exported, folder: Path, open_package: OpenPackage) -> Engine:
    if made.artifact.backend == "coreml" and sys.platform != "darwin":
        packages = write_packages(made.artifact, made.files, folder)
        return CoreMLEngine(*map(open_package, packages))
    return load_engine(made.artifact, made.files, None)


def table(rows: Sequence[tuple[str, Parity, float]]) -> str:
    """Markdown: a line a backend, with the seconds that it took."""
    lines = ["| backend | photos | largest logit difference | mean | same captions | s |"]
    lines.append("|---" * 6 + "|")
    for backend, parity, seconds in rows:
        same = round(parity.captions_equal * parity.photos)
        cells = [
            backend,
            str(parity.photos),
            f"{parity.max_logit_difference:.1e}",
            f"{parity.mean_logit_difference:.1e}",
            f"{same} of {parity.photos}",
            f"{seconds:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, help="student.safetensors of a run")
    parser.add_argument("--photos", type=Path, nargs="+", required=True, help="files or shards")
    parser.add_argument("--limit", type=int, default=200, help="photos, spread over all of them")
    parser.add_argument("--to", nargs="+", default=list(BACKENDS), choices=BACKENDS)
    options = parser.parse_args()

    sys.path.append(str(TESTS))  # behind everything: only the interpreter is wanted from there
    from convert.coreml_interpreter import Interpreter

    checkpoint = read_checkpoint(options.checkpoint)
    pixels = load_photos(find_photos(options.photos), options.limit, checkpoint.rule())
    rows = []
    for backend in options.to:
        print(f"{backend}: comparing with eager on {len(pixels)} photos", file=sys.stderr)
        start = time.perf_counter()
        parity = measure(checkpoint, backend, pixels, Interpreter)
        rows.append((backend, parity, time.perf_counter() - start))
        for one in parity.divergences:
            print(
                f"{backend}: photo {one.photo}, piece {one.place}: {one.expected} in eager,"
                f" {one.found} here",
                file=sys.stderr,
            )
    print(table(rows))
    return int(not all(is_exact(parity) for _, parity, _ in rows))


if __name__ == "__main__":
    sys.exit(main())
