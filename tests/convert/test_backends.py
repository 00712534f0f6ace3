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
from nanocap.convert.build import build_bundle
from nanocap.convert.parity import EagerEngine
from nanocap.precisions import BACKENDS, every_precision

from ..benchmarks.fp32_parity import is_exact, measure, table
from .coreml_interpreter import Interpreter

PHOTOS = sorted((Path(__file__).parents[2] / "samples" / "photos").glob("*.jpg"))
AS_TRAINED = ("fp32", "fp16")


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_fp32_is_eager(tiny: Any, backend: str) -> None:
    parities = measure(tiny.checkpoint(), backend, tiny.pixels(8, seed=3), Interpreter)
    assert is_exact(parities), parities
    assert table({backend: parities}).endswith("| 0 of 8 | 8 of 8 |")


@pytest.fixture
def core_ml(monkeypatch: pytest.MonkeyPatch) -> None:
    """Core ML, off macOS: the interpreter of ML programs in its place."""
    if sys.platform == "darwin":
        return
    models = pytest.importorskip("coremltools").models

    def opened(package: str, compute_units: Any) -> Interpreter:
        return Interpreter(Path(package))

    monkeypatch.setattr(models, "MLModel", opened)
    monkeypatch.setattr(platform, "system", lambda: "Darwin")


@pytest.fixture
def eager_captions(monkeypatch: pytest.MonkeyPatch, tiny: Any) -> Callable[[Path, int], list[str]]:
    """What the student itself says of the sample photos, by the runtime's own search."""

    def captions(bundle: Path, beams: int) -> list[str]:
        engine = EagerEngine(tiny.student())
        with monkeypatch.context() as patch:
            patch.setattr("nanocap.runtime.captioner.load_engine", lambda *given: engine)
            captioner = Captioner(bundle)
        return [captioner(photo, beams=beams).text for photo in PHOTOS]

    return captions


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_artifact_captions_the_sample_photos(
    tmp_path: Path,
    tiny: Any,
    backend: str,
    core_ml: None,
    eager_captions: Callable[[Path, int], list[str]],
) -> None:
    """fp32 and fp16 word for word what eager says; fewer bits a sentence, each time the same."""
    bundle = build_bundle(
        tiny.checkpoint(),
        tmp_path / backend,
        backends=[backend],
        precisions=every_precision([backend]),
        photos=PHOTOS,
        int8=tiny.minmax,
    )
    assert len(PHOTOS) == 6
    artifacts = Bundle(bundle).manifest.artifacts
    assert [f"{backend}:{a.precision}" for a in artifacts] == list(every_precision([backend]))
    for artifact in artifacts:
        captioner = Captioner(bundle, artifact=artifact.name, threads=1)
        words = {piece.strip("\u2581") for piece in captioner.vocabulary.pieces}
        for beams in (1, 3):
            said = [captioner(photo, beams=beams).text for photo in PHOTOS]
            if artifact.precision in AS_TRAINED:
                assert said == eager_captions(bundle, beams), artifact.name
            again = Captioner(bundle, artifact=artifact.name, threads=1)
            assert said == [again(photo, beams=beams).text for photo in PHOTOS], artifact.name
            for text in said:
                spoken = text.rstrip(".").lower().split()
                assert spoken
                assert words.issuperset(spoken)
