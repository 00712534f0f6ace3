"""Engines run a bundle's graphs, one file a backend: to add one is to add one file.

The module `nanocap.runtime.engines.<backend>` holds a function

    load(artifact: Artifact, files: Mapping[str, bytes], threads: int | None) -> Engine

A backend whose package is missing raises MissingExtraError in it. One that lets the user say what
hardware runs it takes a fourth argument, `providers`, and says so by `PROVIDERS = True`. One whose
package takes long to import, and can be imported by anybody, names it as `PACKAGE`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from nanocap.bundle.manifest import Artifact
from nanocap.errors import EngineError, OptionError
from nanocap.runtime.engines.providers import Providers
from nanocap.runtime.engines.state import State


class Engine(Protocol):
    """A model, loaded. Its calls may come from several threads.

    The arrays of a state are those that the artifact's `state` lists (`nanocap.bundle.manifest`).
    """

    def begin(
        self,
        pixels: npt.NDArray[np.uint8],
        beams: int,
        quality: int,
        length: int,
        length_penalty: float,
    ) -> State:
        """The state before the first step, for pixels [B, size, size, 3].

        Args:
            quality, length: ids of the control tokens that a caption starts from.
        """

    def step(self, state: State, *, logits: bool = False) -> State:
        """The state after one step; the one that is given stays as it is.

        Args:
            logits: give the decoder's logits [B, K, V] too, as `logits`.
        """


def import_ahead(backend: str) -> None:
    """Import what the engine of `backend` needs; what is wrong with it is for `load_engine`."""
    with suppress(ImportError, OSError):  # a library of its own may be missing
        engine = import_module(f"{__name__}.{backend}")
        if hasattr(engine, "PACKAGE"):
            import_module(engine.PACKAGE)


def load_engine(
    artifact: Artifact,
    files: Mapping[str, bytes],
    threads: int | None,
    providers: Providers | None = None,
) -> Engine:
    """The engine for `artifact`, its graphs loaded from `files` (bytes by path in the bundle).

    Raises:
        EngineError: this version has no such backend, or the backend refuses the graphs or has not
            the providers that were demanded.
        OptionError: the backend has no providers to choose from.
        MissingExtraError: the backend's package is not installed.
    """
    name = f"{__name__}.{artifact.backend}"
    try:
        module: Any = import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise EngineError(
            f"artifact {artifact.name}: this version of nanocap has no backend"
            f" {artifact.backend!r}; choose another artifact or a newer nanocap"
        ) from None
    if providers is None or not providers.names:
        return cast(Engine, module.load(artifact, files, threads))
    if not getattr(module, "PROVIDERS", False):
        raise OptionError(f"artifact {artifact.name}: engine {artifact.backend} has no providers")
    return cast(Engine, module.load(artifact, files, threads, providers))
