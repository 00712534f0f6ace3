"""ONNX Runtime sessions for the converter's own use."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import onnxruntime

ERROR = 3  # severity: warnings about a graph under work are no news


def open_session(graph: bytes, optimized: Path | None = None) -> Any:
    """A session on the CPU.

    Args:
        graph: the file's bytes.
        optimized: where to write the graph as ONNX Runtime rewrote it for this processor.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERROR
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def running_operators(graph: bytes) -> Counter[str]:
    """How many operators of each type really run, once ONNX Runtime has rewritten the graph."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        open_session(graph, path)
        return Counter(node.op_type for node in onnx.load(path).graph.node)
