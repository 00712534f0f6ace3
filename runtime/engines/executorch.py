"""ExecuTorch on the CPU: one `.pte` with the methods `begin` and `step`.

They take one photo, because that is what a device captions; more photos are a loop here. Its Python
binding takes torch's tensors: in Python, and only there, this engine needs torch.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any
from weakref import WeakSet

import numpy as np
import numpy.typing as npt

from nanocap.bundle.manifest import Artifact, StateTensor
from nanocap.errors import EngineError, EngineWarning, MissingExtraError, one_line
from nanocap.runtime.engines.state import State, joined, take

ROLE = "model"  # of the artifact's one file
METHODS = ("begin", "step")
LOGITS = "logits"  # the last output of `step`
DEFAULT_THREADS = 1  # a step is too short to share, and both methods have the same threads


class ExecuTorchEngine:
    """A program, loaded.

    Args:
        program: it holds the bytes that its methods point into.
        tensors: of the state, in the order in which both methods have them.
    """

    def __init__(self, program: Any, tensors: Sequence[StateTensor]) -> None:
        self._program, self._tensors = program, tensors
        self._moving = [tensor for tensor in tensors if not tensor.constant]
        self._begin, self._step = (program.load_method(name) for name in METHODS)
        self._lock = Lock()  # both methods work in the same memory

    def begin(
        self,
        pixels: npt.NDArray[np.uint8],
        beams: int,
        quality: int,
        length: int,
        length_penalty: float,
    ) -> State:
        controls: list[npt.NDArray[Any]] = [
            np.arange(beams, dtype=np.int64),
            np.array([quality], np.int64),
            np.array([length], np.int64),
            np.array([length_penalty], np.float32),
        ]
        names = [tensor.name for tensor in self._tensors]
        found = [
            self._run(self._begin, [one, *controls], names) for one in np.split(pixels, len(pixels))
        ]
        return joined(found, self._tensors)

    def step(self, state: State, *, logits: bool = False) -> State:
        names = [*(tensor.name for tensor in self._moving), LOGITS]
        found = []
        for image in range(images := len(state["going"])):
            one = take(state, self._tensors, np.array([image])) if images > 1 else state
            inputs = [one[tensor.name] for tensor in self._tensors]
            found.append(self._run(self._step, inputs, names))
            if not logits:
                del found[-1][LOGITS]
        return {**state, **joined(found, self._moving)}

    def _run(self, method: Any, inputs: Sequence[npt.NDArray[Any]], names: Sequence[str]) -> State:
        import torch

        tensors = [torch.from_numpy(np.require(each, requirements=["C", "W"])) for each in inputs]
        try:
            with self._lock:
                found = [each.numpy() for each in method.execute(tensors)]
            return dict(zip(names, found, strict=True))
        except Exception as error:  # the binding raises RuntimeError, of whatever it was
            raise EngineError(
                f"ExecuTorch cannot run the program ({one_line(error)[:200]}); the bundle's program"
                " does not fit its manifest, get the bundle again"
            ) from None


_running: WeakSet[ExecuTorchEngine] = WeakSet()


def load(artifact: Artifact, files: Mapping[str, bytes], threads: int | None) -> ExecuTorchEngine:
    """The program of the artifact.

    Args:
        threads: of both methods; None: one, or as many as there are. ExecuTorch has one pool of
            threads a process: while an engine lives, another number than its own gives an
            EngineWarning and is not heeded.

    Raises:
        EngineError: there is no program, or ExecuTorch refuses it.
        MissingExtraError: ExecuTorch or torch is not installed.
    """
    path = artifact.files.get(ROLE)
    if path is None:
        raise EngineError(f"artifact {artifact.name}: has no {ROLE}; build the bundle again")
    try:
        with quiet():
            from executorch.extension.pybindings import portable_lib
            from executorch.runtime import Runtime
    except ImportError as error:
        package = (error.name or "executorch").partition(".")[0]
        raise MissingExtraError(f"artifact {artifact.name}", "executorch", package) from None
    _use(portable_lib, threads)
    try:
        program = Runtime.get().load_program(files[path])
        missing = set(METHODS) - program.method_names
        if missing:
            raise EngineError(
                f"artifact {artifact.name}: {path} has no method {min(missing)}; build the bundle"
                " again"
            )
        engine = ExecuTorchEngine(program, artifact.state)
    except RuntimeError as error:
        raise EngineError(
            f"artifact {artifact.name}: ExecuTorch refuses {path} ({one_line(error)[:200]}); get"
            " the bundle again or update executorch"
        ) from None
    _running.add(engine)
    return engine


@contextmanager
def quiet() -> Iterator[None]:
    """Without ExecuTorch's remarks on interfaces that may change and on other hardware."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _use(portable_lib: Any, threads: int | None) -> None:
    """So many threads from now on, unless an engine holds on to the pool that there is."""
    there = portable_lib._threadpool_get_thread_count()
    if threads is None:
        threads = there if len(_running) else DEFAULT_THREADS
    if there == threads:
        return
    if len(_running):
        warnings.warn(
            f"ExecuTorch runs with {there} threads, as the first model in this process does, not"
            f" {threads}",
            EngineWarning,
            stacklevel=4,
        )
        return
    portable_lib._unsafe_reset_threadpool(threads)
