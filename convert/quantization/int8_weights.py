"""8-bit weights under float arithmetic: the size of int8, and the same answer on every processor.

Processors add int8 products in different ways, and a caption may turn on it; floats they add alike
up to the last digits. The weights are multiplied out when a session opens (`SESSION`), so that a
caption takes the time and the memory of fp32. In WebAssembly, which has no int8 products, that is
the fastest there is.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from nanocap.convert.graphs.passes import constants, drop_unused, output_axis

SESSION = {"session.disable_quant_qdq": "1"}  # ONNX Runtime multiplies out once, not in every run
LEAST = 1024  # weights; a smaller tensor gains nothing
STEPS = 127  # of an int8, on either side of zero


def quantize_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with the weights of its layers, and its tables, in int8 with a scale a channel."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph, values = result.graph, constants(result)
    axes: dict[str, int] = {}
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul") and node.input[1] in values:
            axes[node.input[1]] = 0 if node.op_type == "Conv" else output_axis(node)
        elif node.op_type == "Gather" and node.input[0] in values:
            axes.setdefault(node.input[0], 0)  # a table by rows, as the logits have it
    large = {
        name: axis
        for name, axis in axes.items()
        if values[name].dtype == np.float32 and values[name].size >= LEAST
    }
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name in large:
                node.input[index] = f"{name}_float"
    unpacking = []
    for name, axis in large.items():
        steps, scale = _rounded(values[name], axis)
        graph.initializer.append(numpy_helper.from_array(steps, f"{name}_int8"))
        graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
        inputs = [f"{name}_int8", f"{name}_scale"]
        unpacking.append(helper.make_node("DequantizeLinear", inputs, [f"{name}_float"], axis=axis))
    nodes = [*unpacking, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return drop_unused(result)


def _rounded(
    weights: npt.NDArray[np.float32], axis: int
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """int8 in the shape of the weights, and a scale for each place along the axis."""
    others = tuple(i for i in range(weights.ndim) if i != axis)
    largest = np.abs(weights).max(axis=others, keepdims=True)
    scale = np.where(largest == 0, 1, largest / STEPS).astype(np.float32)
    return np.rint(weights / scale).astype(np.int8), scale.ravel()
