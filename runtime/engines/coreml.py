"""Core ML, on macOS: the processors that its author trusts it with, or the CPU for fp32."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from nanocap.bundle.manifest import Artifact, StateTensor
from nanocap.errors import EngineError, MissingExtraError, one_line
from nanocap.runtime.engines.onnx import LOGITS, NEW
from nanocap.runtime.engines.state import State, joined, take

ROLES = ("begin", "step")
# What an `.mlpackage` holds, and the part of a role that names it in the manifest: `begin` is its
# Manifest.json, `begin-model` and `begin-weights` what that names.
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
    """The two packages of an artifact. They take one photo a call, and search with fixed beams.

    Args:
        begin, step: loaded.
        tensors: of the artifact's state.
        held: kept as long as the engine: the folder that they were loaded from.
    """

    def __init__(
        self, begin: Model, step: Model, tensors: Sequence[StateTensor], held: object = None
    ) -> None:
        self._begin, self._step, self._tensors, self._held = begin, step, tensors, held
        self._state = {tensor.name: tensor.type for tensor in tensors}
        self._moved = {
            f"{NEW}{tensor.name}": tensor.type for tensor in tensors if not tensor.constant
        }
        self._lock = Lock()  # a Core ML model takes one call at a time

    def begin(
        self,
        pixels: npt.NDArray[np.uint8],
        beams: int,
        quality: int,
        length: int,
        length_penalty: float,
    ) -> State:
        controls = {
            "quality": np.array([quality], np.int32),
            "length": np.array([length], np.int32),
            "length_penalty": np.array([length_penalty], np.float32),
        }
        feeds = ({"pixels": Image.fromarray(photo), **controls} for photo in pixels)
        states = [self._run(self._begin, each, self._state) for each in feeds]
        return joined(states, self._tensors)

    def step(self, state: State, *, logits: bool = False) -> State:
        outputs = {**self._moved, LOGITS: "float32"} if logits else self._moved
        states = []
        for photo in range(len(state["tokens"])):
            one = take(state, self._tensors, np.array([photo]))
            feeds = {name: one[name].astype(kind) for name, kind in self._state.items()}
            found = self._run(self._step, feeds, outputs)
            states.append(feeds | {name.removeprefix(NEW): value for name, value in found.items()})
        return joined(states, self._tensors)

    def _run(self, model: Model, feeds: dict[str, Any], outputs: Mapping[str, str]) -> State:
        """Its outputs, of these types by name."""
        try:
            with self._lock:
                found = model.predict(feeds)
            return {name: np.asarray(found[name], kind) for name, kind in outputs.items()}
        except Exception as error:  # coremltools hands on Core ML's errors as RuntimeError and more
            raise EngineError(
                f"Core ML cannot run the model ({one_line(error)[:200]}); the bundle's models do"
                " not fit its manifest, get the bundle again"
            ) from None


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
    return CoreMLEngine(models[0], models[1], artifact.state, folder)
