"""Core ML, on macOS: the processors that its author trusts it with, or the CPU for fp32."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from nanocap.bundle.manifest import Artifact
from nanocap.errors import EngineError, MissingExtraError, one_line
from nanocap.runtime.engines import Floats, Ints

ROLES = ("encoder", "decoder")
# What an `.mlpackage` holds, and the part of a role that names it in the manifest: `encoder` is its
# Manifest.json, `encoder-model` and `encoder-weights` what that names.
PARTS = {
    "": "Manifest.json",
    "-model": "Data/com.apple.CoreML/model.mlmodel",
    "-weights": "Data/com.apple.CoreML/weights/weight.bin",
}


class Model(Protocol):
    """What is asked of coremltools' MLModel."""

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        """Outputs by name, of arrays and images by name."""


class CoreMLEngine:
    """The two packages of an artifact. They take one photo and one beam a call.

    Args:
        encoder, decoder: loaded.
        held: kept as long as the engine: the folder that they were loaded from.
    """

    def __init__(self, encoder: Model, decoder: Model, held: object = None) -> None:
        self._encoder, self._decoder, self._held = encoder, decoder, held
        self._lock = Lock()  # a Core ML model takes one call at a time

    def encode(self, pixels: npt.NDArray[np.uint8]) -> tuple[Floats, Floats]:
        found = [self._run(self._encoder, {"pixels": Image.fromarray(one)}) for one in pixels]
        return _joined(found, "cross_keys"), _joined(found, "cross_values")

    def step(
        self,
        tokens: Ints,
        position: int,
        cross: tuple[Floats, Floats],
        cache: tuple[Floats, Floats],
    ) -> tuple[Floats, tuple[Floats, Floats]]:
        images, beams = tokens.shape
        found = []
        for row, token in enumerate(tokens.ravel()):
            image, own = slice(row // beams, row // beams + 1), slice(row, row + 1)
            feeds = {
                "tokens": np.array([[token]], np.int32),
                "position": np.array([position], np.int32),
                "cross_keys": cross[0][:, image],
                "cross_values": cross[1][:, image],
                "keys": cache[0][:, own],
                "values": cache[1][:, own],
            }
            found.append(self._run(self._decoder, feeds))
        logits = _joined(found, "logits", axis=0).reshape(images, beams, -1)
        return logits, (_joined(found, "new_keys"), _joined(found, "new_values"))

    def _run(self, model: Model, feeds: dict[str, Any]) -> dict[str, Any]:
        try:
            with self._lock:
                return model.predict(feeds)
        except Exception as error:  # coremltools hands on Core ML's errors as RuntimeError and more
            raise EngineError(
                f"Core ML cannot run the model ({one_line(error)[:200]}); the bundle's models do"
                " not fit its manifest, get the bundle again"
            ) from None


def _joined(found: list[dict[str, Any]], name: str, axis: int = 1) -> Floats:
    """One output of several calls; of caches and keys, images or rows are the second axis."""
    return np.concatenate([one[name] for one in found], axis=axis, dtype=np.float32)


def write_packages(artifact: Artifact, files: Mapping[str, bytes], folder: Path) -> list[Path]:
    """The artifact's packages as folders, for Core ML reads no bytes: `ROLES` in their order.

    Raises:
        EngineError: the artifact has no such package, or not all of it.
    """
    packages = []
    for role in ROLES:
        package = folder / f"{role}.mlpackage"
        for part, inside in PARTS.items():
            path = artifact.files.get(f"{role}{part}")
            if path is None:
                raise EngineError(
                    f"artifact {artifact.name}: has no {role}{part}; build the bundle again"
                )
            target = package / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(files[path])
        packages.append(package)
    return packages


def load(artifact: Artifact, files: Mapping[str, bytes], threads: int | None) -> CoreMLEngine:
    """The artifact's packages, compiled for this machine, which takes seconds.

    Args:
        threads: Core ML chooses by itself.
    Raises:
        EngineError: this is no macOS, a file is missing, or Core ML refuses it.
        MissingExtraError: coremltools is not installed.
    """
    if platform.system() != "Darwin":
        raise EngineError(
            f"artifact {artifact.name}: Core ML runs on macOS, not on {platform.system()};"
            " choose an artifact of engine onnx"
        )
    try:
        import coremltools
    except ImportError as error:
        raise MissingExtraError("engine coreml", "coreml", error.name) from None
    units = coremltools.ComputeUnit
    # Graphics and neural processors compute in fp16 whatever the file says.
    chosen = units.CPU_ONLY if artifact.precision == "fp32" else units.ALL
    folder = TemporaryDirectory(prefix="nanocap-", ignore_cleanup_errors=True)
    models = []
    for package in write_packages(artifact, files, Path(folder.name)):
        try:
            models.append(coremltools.models.MLModel(str(package), compute_units=chosen))
        except Exception as error:
            raise EngineError(
                f"artifact {artifact.name}: Core ML refuses {package.name}"
                f" ({one_line(error)[:200]}); it needs macOS 14 or later, or get the bundle again"
            ) from None
    return CoreMLEngine(models[0], models[1], folder)
