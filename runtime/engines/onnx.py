"""ONNX Runtime, on the CPU unless another provider is asked for."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from nanocap.bundle.manifest import Artifact
from nanocap.cores import available_cores
from nanocap.errors import EngineError, one_line
from nanocap.runtime.engines import Floats, Ints
from nanocap.runtime.providers import Providers

PACKAGE = "onnxruntime"
PROVIDERS = True  # `load` takes them
MOST_THREADS = 4
OPEN: weakref.WeakSet[Any] = weakref.WeakSet()  # sessions of this process
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
    """The two graphs of an artifact, `encoder` and `decoder`, as sessions."""

    def __init__(self, encoder: Any, decoder: Any) -> None:
        self._encoder = encoder
        self._decoder = decoder

    def encode(self, pixels: npt.NDArray[np.uint8]) -> tuple[Floats, Floats]:
        keys, values = _run(self._encoder, ("cross_keys", "cross_values"), {"pixels": pixels})
        return keys, values

    def step(
        self,
        tokens: Ints,
        position: int,
        cross: tuple[Floats, Floats],
        cache: tuple[Floats, Floats],
    ) -> tuple[Floats, tuple[Floats, Floats]]:
        feeds = {
            "tokens": tokens,
            "position": np.array([position], dtype=np.int64),
            "cross_keys": cross[0],
            "cross_values": cross[1],
            "keys": cache[0],
            "values": cache[1],
        }
        logits, keys, values = _run(self._decoder, ("logits", "new_keys", "new_values"), feeds)
        return logits, (keys, values)


def _run(session: Any, outputs: tuple[str, ...], feeds: dict[str, Any]) -> list[Floats]:
    try:
        return cast("list[Floats]", session.run(outputs, feeds))
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
    """Sessions for the artifact's `encoder` and `decoder`.

    Args:
        threads: of each session. None: one a core for the encoder, four at most, and one for
            the decoder, whose steps are too short to share (measured: 6 ms a caption with one
            thread, 9 with two).
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
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
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
    encoder, decoder = session("encoder", most), session("decoder", threads or 1)
    # what is installed may still not start, for want of a driver or a library
    wanted.check(decoder.get_providers())
    return OnnxEngine(encoder, decoder)
