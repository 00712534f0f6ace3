"""fp32 of every backend against eager: logits along eager's captions, and the captions themselves.

Each backend's fp32 artifact is made from the checkpoint and run as the runtime runs it. Both sides
are fed eager's greedy caption piece by piece; a caption is the same where no piece differs, and
then it is also what the backend says when it is left to itself. Core ML runs on macOS only:
elsewhere what was saved is run by the tests' interpreter of ML programs.

Photo by photo, since there is one thing that rounding can decide: which tokens merge, where two
similarities are equal to the last digits. Then logits are apart by more than digits, and no backend
is to blame for it: a photo counts as such a tie where eager itself moves as far once the weights of
its trunk differ by a millionth.

    python tests/benchmarks/fp32_parity.py student.safetensors --photos 'DATA/coco-human-000.tar'

Exits with 1 where a backend is not eager: logits to 1e-3 but for ties, every caption the same.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from nanocap.bundle.manifest import SearchDefaults
from nanocap.bundle.precisions import BACKENDS
from nanocap.convert.checkpoint import Checkpoint, read_checkpoint
from nanocap.convert.exporters import Exported, Job, load_exporter
from nanocap.convert.parity import LOGITS_TOLERANCE, EagerEngine, Parity, compare
from nanocap.convert.photos import drawn_pictures, find_photos, load_photos
from nanocap.runtime.engines import Engine, load_engine
from nanocap.runtime.engines.coreml import CoreMLEngine, Model, write_packages
from nanocap.student import Student

TESTS = Path(__file__).parents[1]
NUDGE, NUDGES = 1e-6, 24  # of a weight, about the rounding of a long sum; and how often
CHECKED = 2  # drawn pictures that the exporter itself compares on

OpenPackage = Callable[[Path], Model]


def measure(
    checkpoint: Checkpoint,
    backend: str,
    pixels: npt.NDArray[np.uint8],
    open_package: OpenPackage,
) -> list[Parity]:
    """The backend's fp32 beside eager, photo by photo.

    Args:
        pixels: uint8 [photos, size, size, 3].
        open_package: what runs an `.mlpackage` where Core ML does not.
    """
    few = drawn_pictures(CHECKED, checkpoint.rule().size)
    probe, search = checkpoint.probe(few, SearchDefaults()), checkpoint.search()
    job = Job(probe, search, pixels[:0], ids=checkpoint.ids())
    (made,) = load_exporter(backend).export(checkpoint.student, ["fp32"], job)
    with tempfile.TemporaryDirectory() as folder:
        engine = _engine(made, Path(folder), open_package)
        return photo_by_photo(checkpoint, engine, pixels, made.artifact.beams[0])


def photo_by_photo(
    checkpoint: Checkpoint, engine: Engine, pixels: npt.NDArray[np.uint8], beams: int
) -> list[Parity]:
    """An engine, which takes so many beams, beside eager."""
    eager = EagerEngine(checkpoint.student, checkpoint.search())
    probe = checkpoint.probe(pixels, SearchDefaults())
    ones = (replace(probe, pixels=pixels[index : index + 1]) for index in range(len(pixels)))
    return [compare(eager, engine, one, beams=beams) for one in ones]


def is_tie(checkpoint: Checkpoint, pixels: npt.NDArray[np.uint8]) -> bool:
    """Whether the last digits of the weights decide how one photo [1, size, size, 3] is seen."""
    search = checkpoint.search()
    eager = EagerEngine(checkpoint.student, search)
    probe = checkpoint.probe(pixels, SearchDefaults())
    nudged = (EagerEngine(_nudged(checkpoint.student, seed), search) for seed in range(NUDGES))
    return any(beyond([compare(eager, other, probe)]) for other in nudged)


@torch.no_grad()
def _nudged(student: Student, seed: int) -> Student:
    random, other = torch.Generator().manual_seed(seed), copy.deepcopy(student)
    for weights in other.encoder.trunk.parameters():
        weights.mul_(1 + NUDGE * torch.randn(weights.shape, generator=random))
    return other


def is_exact(parities: Sequence[Parity]) -> bool:
    """Whether all photos are captioned as the student was trained to."""
    return beyond(parities) == 0 and same(parities) == len(parities)


def beyond(parities: Sequence[Parity]) -> int:
    """Photos whose logits differ by more than the tolerance."""
    return sum(parity.max_logit_difference > LOGITS_TOLERANCE for parity in parities)


def same(parities: Sequence[Parity]) -> int:
    """Photos whose captions do not differ."""
    return sum(parity.captions_equal == 1 for parity in parities)


def _engine(made: Exported, folder: Path, open_package: OpenPackage) -> Engine:
    if made.artifact.backend == "coreml" and sys.platform != "darwin":
        packages = write_packages(made.artifact, made.files, folder)
        return CoreMLEngine(*map(open_package, packages), made.artifact.state)
    return load_engine(made.artifact, made.files, None)


def table(rows: Mapping[str, Sequence[Parity]]) -> str:
    """Markdown, a line a backend."""
    head = ("", "largest logit difference", "median", "photos beyond 1e-3", "same captions")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for backend, parities in rows.items():
        largest = [parity.max_logit_difference for parity in parities]
        cells = [
            backend,
            f"{max(largest):.1e}",
            f"{statistics.median(largest):.1e}",
            f"{beyond(parities)} of {len(parities)}",
            f"{same(parities)} of {len(parities)}",
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
    from convert.coreml.interpreter import Interpreter

    checkpoint = read_checkpoint(options.checkpoint)
    pixels = load_photos(find_photos(options.photos), options.limit, checkpoint.rule())
    rows: dict[str, list[Parity]] = {}
    for backend in options.to:
        print(f"{backend}: comparing with eager on {len(pixels)} photos", file=sys.stderr)
        rows[backend] = measure(checkpoint, backend, pixels, Interpreter)
        for photo, parity in enumerate(rows[backend]):
            if not is_exact([parity]):
                print(f"{backend}: photo {photo}: {parity}", file=sys.stderr)
    print(table(rows))
    apart = {i for some in rows.values() for i, one in enumerate(some) if beyond([one])}
    ties = {photo for photo in sorted(apart) if is_tie(checkpoint, pixels[photo : photo + 1])}
    print(f"of the {len(apart)} photos beyond 1e-3, {len(ties)} are ties that rounding decides")
    words = all(same(parities) == len(parities) for parities in rows.values())
    return int(not words or apart != ties)


if __name__ == "__main__":
    sys.exit(main())
