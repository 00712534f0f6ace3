"""ONNX Runtime, on the CPU unless another provider is asked for."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from nanocap.bundle.manifest import Artifact
from nanocap.cores import available_cores
from nanocap.errors import EngineError, one_line
from nanocap.runtime.engines.providers import Providers
from nanocap.runtime.engines.state import State

PACKAGE = "onnxruntime"
PROVIDERS = True  # `load` takes them
MOST_THREADS = 4
OPEN: weakref.WeakSet[Any] = weakref.WeakSet()  # sessions of this process
NEW = "new_"  # in front of an output of `step` that replaces the input of that name
LOGITS = "logits"
ERROR = 3  # ONNX Runtime's severity: its warnings about graphs are for their makers


def _leave_alone() -> None:
    """In a forked process: never take its parent's sessions apart.

    That waits for their threads to end, which a fork has not: the process would never exit.
    """
    for session in OPEN:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_alone)


class OnnxEngine:
    """The two graphs of an artifact, `begin` and `step`, as sessions."""

    def __init__(self, begin: Any, step: Any) -> None:
        self._begin, self._step = begin, step
        self._state = [output.name for output in begin.get_outputs()]
        self._inputs = [given.name for given in step.get_inputs()]
        outputs = [output.name for output in step.get_outputs()]
        self._outputs = [name for name in outputs if name != LOGITS]
        self._moved = [name.removeprefix(NEW) for name in self._outputs]

    def begin(
        self,
        pixels: npt.NDArray[np.uint8],
        beams: int,
        quality: int,
        length: int,
        length_penalty: float,
    ) -> State:
        feeds = begin_feeds(pixels, beams, quality, length, length_penalty)
        return dict(zip(self._state, _run(self._begin, self._state, feeds), strict=True))

    def step(self, state: State, *, logits: bool = False) -> State:
        outputs = [*self._outputs, LOGITS] if logits else self._outputs
        feeds = {name: state[name] for name in self._inputs}
        found = _run(self._step, outputs, feeds)
        after = {**state, **dict(zip(self._moved, found, strict=False))}
        if logits:
            after[LOGITS] = found[-1]
        return after


def begin_feeds(
    pixels: npt.NDArray[np.uint8], beams: int, quality: int, length: int, length_penalty: float
) -> State:
    """Inputs of the graph `begin`, from the arguments of `Engine.begin`."""
    return {
        "pixels": pixels,
        "beams": np.array(beams),
        "quality": np.array([quality]),
        "length": np.array([length]),
        "length_penalty": np.array([length_penalty], np.float32),
    }


def _run(session: Any, outputs: Sequence[str], feeds: State) -> list[npt.NDArray[Any]]:
    try:
        return cast("list[npt.NDArray[Any]]", session.run(outputs, feeds))
    except Exception as error:  # the binding's exceptions have no base of their own
        raise EngineError(
            f"ONNX Runtime cannot run the graph ({one_line(error)[:200]}); the bundle's graphs do"
            " not fit its manifest, get the bundle again"
        ) from None


def load(
    artifact: Artifact,
    files: Mapping[str, bytes],
    threads: int | None,
    providers: Providers | None = None,
) -> OnnxEngine:
    """Sessions for the artifact's `begin` and `step`.

    Args:
        threads: of each session. None: one a core for `begin`, which holds the encoder, four at
            most, and one for `step`, which is too short to share (measured: 6 ms a caption with
            one thread, 9 with two).
        providers: what runs the graphs before the CPU does; what is missing gives a warning.

    Raises:
        EngineError: a graph is missing, ONNX Runtime refuses it, or a provider that was demanded
            is missing.
    """
    import onnxruntime

    wanted = providers or Providers()
    available = onnxruntime.get_available_providers()
    if wanted.strict:
        wanted.check(available)  # before seconds of loading

    def session(role: str, count: int) -> Any:
        path = artifact.files.get(role)
        if path is None:
            raise EngineError(f"artifact {artifact.name}: has no {role}; build the bundle again")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = ERROR
        options.intra_op_num_threads = count
        # Threads that spin while they wait burn a phone's battery, and may take from the last of
        # them the core that it needs.
        entries = {"session.intra_op.allow_spinning": "0", **artifact.session}
        for key, value in entries.items():
            options.add_session_config_entry(key, value)
        try:
            opened = onnxruntime.InferenceSession(
                files[path], options, providers=wanted.among(available)
            )
            OPEN.add(opened)
            return opened
        except Exception as error:  # the binding's exceptions have no base of their own
            raise EngineError(
                f"artifact {artifact.name}: ONNX Runtime {onnxruntime.__version__} refuses"
                f" {path} ({one_line(error)[:200]}); get the bundle again or update onnxruntime"
            ) from None

    # One after the other: at once they take as long, for they contend for memory.
    most = threads or min(available_cores(), MOST_THREADS)
    begin, step = session("begin", most), session("step", threads or 1)
    # what is installed may still not start, for want of a driver or a library
    wanted.check(step.get_providers())
    return OnnxEngine(begin, step)
