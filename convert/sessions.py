"""ONNX Runtime sessions for the converter's own use."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import onnxruntime

ERROR = 3  # severity: warnings about a graph under work are no news


def open_session(graph: bytes, optimized: Path | None = None, portable: bool = False) -> Any:
    """A session on the CPU.

    Args:
        graph: the file's bytes.
        optimized: where to write the graph as ONNX Runtime rewrote it.
        portable: rewrite it only in ways that hold on any processor, not for this one.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERROR
    if portable:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph after ONNX Runtime's portable rewrites, which no start has to do again.

    For graphs without halves, which it turns to floats for a CPU, and without weights that become
    float when they are loaded, which it would store as floats.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "folded.onnx"
        open_session(model.SerializeToString(), path, portable=True)
        result = onnx.load(path)
    used = {node.domain for node in result.graph.node}
    kept = [entry for entry in result.opset_import if entry.domain in used]
    del result.opset_import[:]  # it names every domain that it knows
    result.opset_import.extend(kept)
    return result


def running_operators(graph: bytes) -> Counter[str]:
    """How many operators of each type really run, once ONNX Runtime has rewritten the graph."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        open_session(graph, path)
        return Counter(node.op_type for node in onnx.load(path).graph.node)
