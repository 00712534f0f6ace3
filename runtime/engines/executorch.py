"""ExecuTorch on the CPU: one `.pte` with the methods `encode` and `decode`.

Each takes one photo, `decode` some beams of it, because that is what a device captions; more photos
or more beams are a loop here. Its Python binding takes torch's tensors: in Python, and only there,
this engine needs torch.
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

from nanocap.bundle.manifest import Artifact
from nanocap.errors import EngineError, EngineWarning, MissingExtraError, one_line
from nanocap.runtime.engines import Floats, Ints

ROLE = "model"  # of the artifact's one file
METHODS = ("encode", "decode")
CONSTANTS = ("layers", "heads", "width", "max_tokens", "visual_tokens", "max_beams")
DEFAULT_THREADS = 1  # a step is too short to share, and both methods have the same threads


class ExecuTorchEngine:
    """A program, loaded.

    What `encode` gives and the cache have the shapes of the protocol, and the order of axes within
    a row that `decode` multiplies without moving anything: only this engine reads them.
    """

    def __init__(self, program: Any) -> None:
        self._program = program  # it holds the bytes that its methods point into
        sizes = {name: int(program.load_method(name).execute(())[0]) for name in CONSTANTS}
        self._layers, self._heads, self._width = sizes["layers"], sizes["heads"], sizes["width"]
        self._length, self._seen = sizes["max_tokens"], sizes["visual_tokens"]
        self._most = sizes["max_beams"]
        self._encode, self._decode = (program.load_method(name) for name in METHODS)
        self._lock = Lock()  # both methods work in the same memory

    def encode(self, pixels: npt.NDArray[np.uint8]) -> tuple[Floats, Floats]:
        shape = (self._layers, 1, self._seen, self._width)
        found = [self._run(self._encode, [pixels[i : i + 1]]) for i in range(len(pixels))]
        keys, values = (
            np.concatenate([each[i].reshape(shape) for each in found], axis=1) for i in (0, 1)
        )
        return keys, values

    def step(
        self,
        tokens: Ints,
        position: int,
        cross: tuple[Floats, Floats],
        cache: tuple[Floats, Floats],
    ) -> tuple[Floats, tuple[Floats, Floats]]:
        images, beams = tokens.shape
        keys, values = cache[0].copy(), cache[1].copy()
        logits = []
        for image in range(images):
            seen = (cross[0][:, image], cross[1][:, image])
            for start in range(0, beams, self._most):
                some = tokens[image, start : start + self._most]
                first = image * beams + start
                rows = slice(first, first + len(some))
                logits.append(self._one(some, position, seen, keys[:, rows], values[:, rows]))
        return np.concatenate(logits).reshape(images, beams, -1), (keys, values)

    def _one(
        self,
        tokens: Ints,
        position: int,
        cross: tuple[Floats, Floats],
        keys: Floats,
        values: Floats,
    ) -> Floats:
        """Logits [R, V] of R beams of one photo; writes to their caches [L, R, T, D]."""
        rows, channels = len(tokens), self._width // self._heads
        by_head = self._layers * self._heads
        key_shape = (rows, self._width, self._length)
        value_shape = (rows, self._heads * self._length, channels)
        caches = [
            each
            for key, value in zip(keys, values, strict=True)
            for each in (key.reshape(key_shape), value.reshape(value_shape))
        ]
        inputs = [
            tokens,
            np.array([position], np.int64),
            cross[0].reshape(by_head, channels, self._seen),
            cross[1].reshape(by_head, self._seen, channels),
            *caches,
        ]
        logits, *added = self._run(self._decode, inputs)
        for layer in range(self._layers):
            # `caches` are views of the rows that were given
            caches[2 * layer][:, :, position] = added[layer]
            value = caches[2 * layer + 1].reshape(rows, self._heads, self._length, channels)
            value[:, :, position] = added[self._layers + layer].reshape(rows, self._heads, channels)
        return logits

    def _run(self, method: Any, inputs: Sequence[npt.NDArray[Any]]) -> list[Floats]:
        import torch

        # one that is not contiguous has been copied by `reshape`, but for pixels and tokens
        tensors = [torch.from_numpy(np.ascontiguousarray(each)) for each in inputs]
        try:
            with self._lock:
                return [each.numpy() for each in method.execute(tensors)]
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
        missing = {*METHODS, *CONSTANTS} - program.method_names
        if missing:
            raise EngineError(
                f"artifact {artifact.name}: {path} has no method {min(missing)}; build the bundle"
                " again"
            )
        engine = ExecuTorchEngine(program)
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
