"""Dynamic int8: products with weights in integers, scaled by what goes into them at the moment.

No photos are needed. The scale of an activation is taken over its row alone, a token's channels:
ONNX's DynamicQuantizeLinear takes it over the whole tensor, so that a caption would depend on the
photos and beams beside it. A row's scale is its largest magnitude over 127; its bytes are that
many steps from 128. Convolutions run in float, and so does all without weights; the convolutions'
weights are held as bytes and become float when the graph is loaded.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from nanocap.convert.graphs.passes import constants, drop_unused, output_axis, replace_node
from nanocap.convert.quantization.int8 import linear_nodes
from nanocap.convert.quantization.saturation import SMALLEST, STEPS, weight_steps

MIDDLE = 128  # the activation's byte that stands for 0
MANY = 1024  # weights; smaller convolutions stay as they are


def quantize_dynamically(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the graph with int8 weights and, in linear layers, int8 products."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph, weights = result.graph, constants(result)
    rows: set[str] = set()  # activations that are bytes already: three products may share one
    held: set[str] = set()  # weights that are bytes already
    for node in linear_nodes(result):
        name = node.input[1]
        if name not in held:
            held.add(name)
            matrix_KN = weights[name].T if output_axis(node) == 0 else weights[name]
            step = weight_steps(matrix_KN.T)
            _hold(graph, name, round_columns(matrix_KN, step), step)
        before = [] if node.input[0] in rows else _bytes_of_rows(node.input[0])
        rows.add(node.input[0])
        replace_node(result, node, before + _product(node))
    for node in [n for n in graph.node if n.op_type == "Gather" and n.input[0] in held]:
        replace_node(result, node, _columns_as_rows(node))
    for node in [n for n in graph.node if n.op_type == "Conv" and weights[n.input[1]].size >= MANY]:
        name = node.input[1]
        filters = weights[name]
        columns = filters.reshape(len(filters), -1).T
        step = np.maximum(np.abs(columns).max(0), SMALLEST) / STEPS  # multiplied as float
        rounded = np.ascontiguousarray(round_columns(columns, step).T).reshape(filters.shape)
        _hold(graph, name, rounded, step.reshape(-1, *[1] * (filters.ndim - 1)))
        # ONNX Runtime folds these two when it loads
        graph.node.insert(0, helper.make_node("Mul", [f"{name}_whole", f"{name}_scale"], [name]))
        cast = helper.make_node("Cast", [f"{name}_int8"], [f"{name}_whole"], to=TensorProto.FLOAT)
        graph.node.insert(0, cast)
        held.add(name)
    kept = [tensor for tensor in graph.initializer if tensor.name not in held]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *_numbers()])
    return drop_unused(result)


def round_columns(
    matrix_KN: npt.NDArray[np.float32], step: npt.NDArray[np.float32]
) -> npt.NDArray[np.int8]:
    """The matrix [K, N] in steps [N] of each column."""
    return np.rint(matrix_KN / step).astype(np.int8)


def _hold(
    graph: onnx.GraphProto, name: str, rounded: npt.NDArray[np.int8], scale: npt.NDArray[np.float32]
) -> None:
    rounded = np.ascontiguousarray(rounded)
    graph.initializer.append(numpy_helper.from_array(rounded, f"{name}_int8"))
    graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))


def _bytes_of_rows(x: str) -> list[onnx.NodeProto]:
    """`x` [..., K] as `x_bytes` uint8 and `x_step` [..., 1], the scale of each row."""
    make = helper.make_node
    return [
        make("Abs", [x], [f"{x}_size"], f"{x}_abs"),
        make("ReduceMax", [f"{x}_size", "last_axis"], [f"{x}_largest"], f"{x}_max"),
        make("Max", [f"{x}_largest", "least"], [f"{x}_some"], f"{x}_some"),
        make("Mul", [f"{x}_some", "a_step"], [f"{x}_step"], f"{x}_scale"),
        make("Div", [x, f"{x}_step"], [f"{x}_in_steps"], f"{x}_div"),
        make("QuantizeLinear", [f"{x}_in_steps", "one", "middle"], [f"{x}_bytes"], f"{x}_round"),
    ]


def _product(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The linear layer's product in integers, scaled back, with its bias."""
    x, weight, out = node.input[0], node.input[1], node.output[0]
    bias = list(node.input[2:])
    make = helper.make_node
    last = f"{out}_unbiased" if bias else out
    nodes = [
        make(
            "MatMulInteger", [f"{x}_bytes", f"{weight}_int8", "middle"], [f"{out}_sum"], node.name
        ),
        make("Cast", [f"{out}_sum"], [f"{out}_whole"], f"{out}_cast", to=TensorProto.FLOAT),
        make("Mul", [f"{out}_whole", f"{x}_step"], [f"{out}_rows"], f"{out}_by_rows"),
        make("Mul", [f"{out}_rows", f"{weight}_scale"], [last], f"{out}_by_columns"),
    ]
    return [*nodes, make("Add", [last, *bias], [out], f"{out}_bias")] if bias else nodes


def _columns_as_rows(gather: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Rows of a table that is held as its transpose [K, N], for the product: look up columns."""
    table, ids, out = gather.input[0], gather.input[1], gather.output[0]
    make = helper.make_node
    return [
        make("Gather", [f"{table}_int8", ids], [f"{out}_columns"], f"{out}_gather", axis=1),
        make("Cast", [f"{out}_columns"], [f"{out}_whole"], f"{out}_cast", to=TensorProto.FLOAT),
        make("Gather", [f"{table}_scale", ids], [f"{out}_scale"], f"{out}_gather_scale"),
        make("Mul", [f"{out}_whole", f"{out}_scale"], [f"{out}_turned"], f"{out}_mul"),
        make("Transpose", [f"{out}_turned"], [out], f"{out}_turn", perm=[1, 0]),
    ]


def _numbers() -> list[onnx.TensorProto]:
    values: dict[str, npt.NDArray[Any]] = {
        "last_axis": np.array([-1], np.int64),
        "least": np.array(SMALLEST * STEPS, np.float32),
        "a_step": np.array(1 / STEPS, np.float32),
        "one": np.array(1, np.float32),
        "middle": np.array(MIDDLE, np.uint8),
    }
    return [numpy_helper.from_array(value, name) for name, value in values.items()]
