"""ONNX Runtime sessions for the converter's own use."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch

ERROR = 3  # severity: warnings about a graph under work are no news

MACHINE_ONLY = ("NchwcTransformer",)  # blocks of channels as wide as this processor's registers

_threads = 0  # of a session; 0 is one a core


def use_threads(count: int | None) -> None:
    """Have torch, and every session opened from now on, compute with so many threads.

    None leaves them their own choice, mostly one a core.
    """
    global _threads
    _threads = count or 0
    if count is not None:
        torch.set_num_threads(count)


def threads() -> int | None:
    """What `use_threads` was told."""
    return _threads or None


def open_session(
    graph: bytes, options: onnxruntime.SessionOptions | None = None, without: Sequence[str] = ()
) -> Any:
    """A session on the CPU of a file's bytes, without some of ONNX Runtime's rewrites."""
    options = options or onnxruntime.SessionOptions()
    options.log_severity_level = ERROR
    options.intra_op_num_threads = _threads
    # as nanocap/threads.py has it for torch: spinning takes the core that a late thread needs
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(
        graph, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(without)
    )


def folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph after ONNX Runtime's portable rewrites, which no start has to do again.

    It stays plain ONNX. For graphs without halves, which it turns to floats for a CPU, and without
    weights that become float when they are loaded, which it would store as floats.
    """
    return _portable(model, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC)


def fused(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with ONNX Runtime's own integer operators instead of Q/DQ pairs: ready for a CPU.

    A session of it opens in half the time (the encoder of nano-s: 52 to 24 ms), and computes the
    same: these are the rewrites that every session makes on every kind of processor. Execution
    providers other than the CPU's look for the pairs.
    """
    return _portable(model, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL)


def _portable(model: onnx.ModelProto, level: Any) -> onnx.ModelProto:
    result = _rewritten(model.SerializeToString(), level, MACHINE_ONLY)
    used = {node.domain for node in result.graph.node}
    kept = [entry for entry in result.opset_import if entry.domain in used]
    del result.opset_import[:]  # it names every domain that it knows
    result.opset_import.extend(kept)
    return result


def running_operators(graph: bytes) -> Counter[str]:
    """How many operators of each type really run, once ONNX Runtime has rewritten the graph."""
    level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    return Counter(node.op_type for node in _rewritten(graph, level).graph.node)


def _rewritten(graph: bytes, level: Any, without: Sequence[str] = ()) -> onnx.ModelProto:
    """The graph as ONNX Runtime rewrites it when it loads it."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rewritten.onnx"
        options.optimized_model_filepath = str(path)
        open_session(graph, options, without)
        return onnx.load(path)
