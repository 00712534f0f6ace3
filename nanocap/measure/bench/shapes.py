"""The shape and type of every tensor of an ONNX graph, for given inputs.

`onnx` is imported here and in `peaks.py` alone, when something is counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nanocap.errors import MissingExtraError

Shape = tuple[int, ...]


def import_onnx() -> Any:
    """The package `onnx`. Raises MissingExtraError where it is not installed."""
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise MissingExtraError("nanocap bench", "eval", error.name) from None
    return onnx


@dataclass(frozen=True)
class Tensor:
    """A tensor's shape and the bits of an element as it is stored (4 for int4)."""

    shape: Shape
    bits: int

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Its size, elements packed, rounded up to whole bytes."""
        return -(-self.elements * self.bits // 8)


def attributes(node: Any) -> dict[str, Any]:
    """A node's attributes as Python values."""
    onnx = import_onnx()
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def infer_tensors(model: Any, inputs: Mapping[str, Shape]) -> dict[str, Tensor]:
    """Every tensor of the top graph whose shape and type follow from the inputs'.

    Args:
        model: an `onnx.ModelProto`; it is not altered. Bodies of `If` and `Loop` are not entered.
        inputs: the shape of each input of the graph.

    Returns:
        tensors by name; those behind an operator that nobody knows are absent.
    """
    onnx = import_onnx()
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    graph = fixed.graph
    for value in graph.input:
        if value.name in inputs:
            elem_type = value.type.tensor_type.elem_type
            value.CopyFrom(
                onnx.helper.make_tensor_value_info(value.name, elem_type, inputs[value.name])
            )
    for value in graph.output:  # what the file says of them may have free axes
        value.type.tensor_type.ClearField("shape")
    del graph.value_info[:]
    while True:
        inferred = onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph
        types = _known_types(inferred)
        added = [value for node in graph.node for value in _foreign(node, types)]
        if not added:
            return {name: Tensor(shape, _bits(elem)) for name, (elem, shape) in types.items()}
        graph.value_info.extend(added)


def _known_types(graph: Any) -> dict[str, tuple[int, Shape]]:
    """Element type and shape by name, where every axis is known."""
    types: dict[str, tuple[int, Shape]] = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if not tensor.elem_type or not tensor.HasField("shape"):
            continue
        if all(axis.HasField("dim_value") for axis in tensor.shape.dim):
            types[value.name] = (tensor.elem_type, tuple(a.dim_value for a in tensor.shape.dim))
    types.update((i.name, (i.data_type, tuple(i.dims))) for i in graph.initializer)
    return types


def _foreign(node: Any, types: Mapping[str, tuple[int, Shape]]) -> list[Any]:
    """The output of a node that only ONNX Runtime knows, once its inputs are known."""
    rule = FOREIGN.get(node.op_type)
    if rule is None or not node.domain or node.output[0] in types:
        return []
    if any(name not in types for name in node.input if name):
        return []
    elem_type, shape = rule(node, [types.get(name, (0, ())) for name in node.input])
    return [import_onnx().helper.make_tensor_value_info(node.output[0], elem_type, shape)]


def _match_nbits(node: Any, inputs: list[tuple[int, Shape]]) -> tuple[int, Shape]:
    """MatMulNBits(A [..., K], packed B [N, blocks, bytes], ...): [..., N]."""
    elem_type, shape = inputs[0]
    return elem_type, (*shape[:-1], int(attributes(node)["N"]))


def _match_qgemm(node: Any, inputs: list[tuple[int, Shape]]) -> tuple[int, Shape]:
    """QGemm(A, scale, zero, B, scale, zero[, C, y scale, y zero]): floats without a y scale."""
    onnx, flags = import_onnx(), attributes(node)
    rows, columns = inputs[0][1], inputs[3][1]
    shape = (rows[bool(flags.get("transA", 0))], columns[not flags.get("transB", 0)])
    quantized = len(node.input) > 7 and bool(node.input[7])
    return inputs[0][0] if quantized else onnx.TensorProto.FLOAT, shape


def _like_first(node: Any, inputs: list[tuple[int, Shape]]) -> tuple[int, Shape]:
    """BiasGelu(X, bias): X."""
    return inputs[0]


def _sum(node: Any, inputs: list[tuple[int, Shape]]) -> tuple[int, Shape]:
    """QLinearAdd(A, scale, zero, B, scale, zero, scale, zero): A and B broadcast."""
    return inputs[0][0], tuple(np.broadcast_shapes(inputs[0][1], inputs[3][1]))


def _match_product(node: Any, inputs: list[tuple[int, Shape]]) -> tuple[int, Shape]:
    """FusedMatMul(A, B), MatMulIntegerToFloat(A, B, ...): floats [..., M, N]."""
    flags, (left, right) = attributes(node), (inputs[0][1], inputs[1][1])
    rows, columns = left[-1 - (not flags.get("transA", 0))], right[-1 - flags.get("transB", 0)]
    batch = np.broadcast_shapes(left[:-2], right[:-2])
    return import_onnx().TensorProto.FLOAT, (*batch, rows, columns)


def _convolve_last(node: Any, inputs: list[tuple[int, Shape]]) -> tuple[int, Shape]:
    """QLinearConv(X, scale, zero, W [M, C / groups, *kernel], ...), channels last: [N, ..., M]."""
    flags, (elem_type, (batch, *sides, _)), weights = attributes(node), inputs[0], inputs[3][1]
    axes = len(sides)
    strides, dilations = flags.get("strides", [1] * axes), flags.get("dilations", [1] * axes)
    pads = flags.get("pads", [0] * 2 * axes)
    out = [
        (side + pads[i] + pads[i + axes] - dilations[i] * (weights[2 + i] - 1) - 1) // strides[i]
        + 1
        for i, side in enumerate(sides)
    ]
    return elem_type, (batch, *out, weights[0])


FOREIGN: dict[str, Callable[[Any, list[tuple[int, Shape]]], tuple[int, Shape]]] = {
    "BiasGelu": _like_first,
    "FusedMatMul": _match_product,
    "MatMulIntegerToFloat": _match_product,
    "MatMulNBits": _match_nbits,
    "QGemm": _match_qgemm,
    "QLinearAdd": _sum,
    "QLinearConv": _convolve_last,
}


def _bits(elem_type: int) -> int:
    onnx = import_onnx()
    name = onnx.TensorProto.DataType.Name(elem_type)
    if name.endswith("INT4") or name.startswith("FLOAT4"):
        return 4
    if name == "STRING":
        return 0
    return 8 * int(onnx.helper.tensor_dtype_to_np_dtype(elem_type).itemsize)
