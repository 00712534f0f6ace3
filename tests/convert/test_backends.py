"""Every backend that runs here captions like the student it was made from."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nanocap import Captioner
from nanocap.bundle import Bundle
from nanocap.bundle.precisions import BACKENDS, every_precision
from nanocap.convert.build import build_bundle

from ..benchmarks.fp32_parity import is_exact, measure, table
from .coreml.interpreter import Interpreter

PHOTOS = sorted((Path(__file__).parents[2] / "samples").rglob("*.jpg"))
AS_TRAINED = {"fp32": 10, "fp16": 7}  # captions of the ten that are eager's
REDUCER = "none"  # of random weights every similarity is a near tie: a rounding merges other tokens


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_fp32_is_eager(tiny: Any, backend: str) -> None:
    parities = measure(tiny.checkpoint(), backend, tiny.pixels(8, seed=3), Interpreter)
    assert is_exact(parities), parities
    assert table({backend: parities}).endswith("| 0 of 8 | 8 of 8 |")


@pytest.fixture
def interpret_core_ml(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Off macOS puts the interpreter of ML programs in Core ML's place, when called."""

    def opened(package: str, compute_units: Any) -> Interpreter:
        return Interpreter(Path(package))

    def put() -> None:
        if sys.platform != "darwin":
            models = pytest.importorskip("coremltools").models
            monkeypatch.setattr(models, "MLModel", opened)
            monkeypatch.setattr(platform, "system", lambda: "Darwin")

    return put


@pytest.fixture
def eager_captions(monkeypatch: pytest.MonkeyPatch, tiny: Any) -> Callable[[Path, int], list[str]]:
    """What the student itself says of the sample photos, by the runtime's own search."""

    def captions(bundle: Path, beams: int) -> list[str]:
        engine = tiny.eager(tiny.student(REDUCER))
        with monkeypatch.context() as patch:
            patch.setattr("nanocap.runtime.loaded.load_engine", lambda *given: engine)
            captioner = Captioner(bundle, engine="onnx")  # whose state is eager's
        return [captioner(photo, beams=beams).text for photo in PHOTOS]

    return captions


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_artifact_captions_the_sample_photos(
    tmp_path: Path,
    tiny: Any,
    backend: str,
    interpret_core_ml: Callable[[], None],
    eager_captions: Callable[[Path, int], list[str]],
) -> None:
    """fp32 word for word what eager says; fewer bits a sentence, each time the same.

    fp16 says nearly always the same: of random weights some pieces are as likely as others.
    """
    bundle = build_bundle(
        tiny.checkpoint(REDUCER),
        tmp_path / backend,
        # the golden caption, too, needs an artifact that runs here
        backends=[backend, *(["onnx"] if backend != "onnx" else [])],
        precisions=every_precision([backend]),
        photos=PHOTOS,
        int8=tiny.minmax,
    )
    assert len(PHOTOS) == 10
    interpret_core_ml()
    artifacts = [one for one in Bundle(bundle).manifest.artifacts if one.backend == backend]
    assert [f"{backend}:{a.precision}" for a in artifacts] == list(every_precision([backend]))
    for artifact in artifacts:
        captioner = Captioner(bundle, artifact=artifact.name, threads=1)
        words = {piece.strip("\u2581") for piece in captioner.vocabulary.pieces}
        least, most = artifact.beams
        for beams in {1, 3} & {*range(least, most + 1)}:
            said = [captioner(photo, beams=beams).text for photo in PHOTOS]
            expected = eager_captions(bundle, beams)
            same = sum(one == other for one, other in zip(said, expected, strict=True))
            assert same >= AS_TRAINED.get(artifact.precision, 0), (artifact.name, said, expected)
            again = Captioner(bundle, artifact=artifact.name, threads=1)
            assert said == [again(photo, beams=beams).text for photo in PHOTOS], artifact.name
            for text in said:
                spoken = text.rstrip(".").lower().split()
                assert spoken
                assert words.issuperset(spoken)
