"""Small passes over ONNX graphs: what the exporter and the quantizer leave to be desired."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from nanocap.convert.errors import ConversionError

FLOAT = onnx.TensorProto.FLOAT
FEWEST_ROWS = 256  # of a table that is worth less than exact
LAST_AXIS = "last_axis"


def clean(model: onnx.ModelProto, axes: Mapping[str, Mapping[int, str]]) -> onnx.ModelProto:
    """Take out what is only for people and debuggers, and name the free axes; in place.

    A third of a megabyte of stack traces would travel in every bundle, and the exporter's
    `value_info` stops ONNX Runtime's quantizer ("Inferred shape and existing shape differ").
    """
    graph = model.graph
    graph.name, graph.doc_string, model.doc_string = "nanocap", "", ""
    graph.ClearField("value_info")
    for holder in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        holder.ClearField("metadata_props")
    for index, node in enumerate(graph.node):
        node.doc_string = ""
        node.name = f"{node.op_type}_{index}"
    for value in (*graph.input, *graph.output):
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if axis in axes.get(value.name, {}):
                dim.dim_param = axes[value.name][axis]
    return model


def drop_unused(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove nodes and initializers that no output needs; in place."""
    graph = model.graph
    needed = {output.name for output in graph.output}
    nodes = []
    for node in reversed(graph.node):  # the nodes of a graph are in order
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(node.input)
    kept = [tensor for tensor in graph.initializer if tensor.name in needed]
    nodes.reverse()
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return model


def quantize_gather(model: onnx.ModelProto) -> onnx.ModelProto:
    """Look rows up in an int8 table and scale them, rather than dequantize the table; in place.

    The embedding is one int8 table for the input and for the logits. The quantizer leaves
    `Gather(DequantizeLinear(table))`, which would turn all of it to float at every step.
    """
    producers = _producers(model)
    for gather in [node for node in model.graph.node if node.op_type == "Gather"]:
        dequantize = producers.get(gather.input[0])
        if dequantize is None or dequantize.op_type != "DequantizeLinear":
            continue
        table, scale = dequantize.input[0], dequantize.input[1]
        zero_point = constants(model)[dequantize.input[2]]
        if zero_point.any():
            raise ConversionError(f"the table {table} has a zero point; quantize it symmetrically")
        _look_up(model, gather, table, scale)
    return drop_unused(model)


def quantize_tables(model: onnx.ModelProto) -> onnx.ModelProto:
    """Keep float tables that only rows are looked up in as int8 with a scale a row; in place.

    The rows of the embedding that evidence is told with: whole, it would be a third of the encoder.
    Of a table whose rows are chosen from a list of constants, only these rows stay.
    """
    consumers, values = _consumers(model), constants(model)
    for name, table in values.items():
        readers = consumers.get(name, [])
        if table.dtype != np.float32 or table.ndim != 2 or len(table) < FEWEST_ROWS:
            continue
        if not all(node.op_type == "Gather" and node.input[0] == name for node in readers):
            continue
        chosen = [_chosen_from(model, gather.input[1]) for gather in readers]
        needed = [found for found in chosen if found is not None]
        if len(needed) == len(chosen):
            rows = np.unique(np.concatenate(needed))
            place = np.zeros(len(table), np.int32)
            place[rows] = np.arange(len(rows))
            model.graph.initializer.append(numpy_helper.from_array(place, f"{name}_place"))
            for gather in readers:
                found, at = f"{gather.output[0]}_row", list(model.graph.node).index(gather)
                look = helper.make_node(
                    "Gather", [f"{name}_place", gather.input[1]], [found], found
                )
                model.graph.node.insert(at, look)
                gather.input[1] = found
            table = table[rows]
        scale = np.maximum(np.abs(table).max(1), np.finfo(np.float32).tiny) / 127
        whole = np.round(table / scale[:, None]).astype(np.int8)
        for suffix, array in (("quantized", whole), ("scale", scale)):
            tensor = numpy_helper.from_array(array, f"{name}_{suffix}")
            model.graph.initializer.append(tensor)
        for gather in readers:
            _look_up(model, gather, f"{name}_quantized", f"{name}_scale")
    return drop_unused(model)


def _chosen_from(model: onnx.ModelProto, value: str) -> np.ndarray | None:
    """The constants that a value's numbers are looked up among, where that is so."""
    producers, values = _producers(model), constants(model)
    while value in producers:
        node = producers[value]
        if node.op_type == "Gather" and node.input[0] in values:
            return values[node.input[0]].flatten()
        if node.op_type not in ("Reshape", "Identity", "Cast"):
            return None
        value = node.input[0]
    return None


def _look_up(model: onnx.ModelProto, gather: onnx.NodeProto, table: str, scale: str) -> None:
    """Rows of an int8 table times their scales, instead of a Gather of floats."""
    make, name, rows, out = helper.make_node, gather.name, gather.input[1], gather.output[0]
    nodes = [
        make("Gather", [table, rows], [f"{out}_bytes"], f"{name}_bytes"),
        make("Cast", [f"{out}_bytes"], [f"{out}_whole"], f"{name}_cast", to=FLOAT),
        make("Gather", [scale, rows], [f"{out}_scale"], f"{name}_scale"),
        make("Unsqueeze", [f"{out}_scale", LAST_AXIS], [f"{out}_column"], f"{name}_column"),
        make("Mul", [f"{out}_whole", f"{out}_column"], [out], f"{name}_mul"),
    ]
    if LAST_AXIS not in constants(model):
        axis = numpy_helper.from_array(np.array([-1], np.int64), LAST_AXIS)
        model.graph.initializer.append(axis)
    replace_node(model, gather, nodes)


def quantize_pixels(model: onnx.ModelProto, mean: float, std: float) -> onnx.ModelProto:
    """Take the pixels' own bytes as the first convolution's quantized input; in place.

    `(x - mean) / std` is exactly what DequantizeLinear computes with zero point `mean` and scale
    `1 / std`. So the chain Cast, Sub, Div, QuantizeLinear after the pixels goes, and no rounding.
    """
    consumers = _consumers(model)
    path: list[onnx.NodeProto] = []
    value = model.graph.input[0].name
    while not path or path[-1].op_type != "QuantizeLinear":
        (node,) = (node for node in consumers[value] if node.op_type != "Shape")
        path.append(node)
        value = node.output[0]
    kinds = [node.op_type for node in path]
    values = constants(model)
    scale, zero_point = (values[name].item() for name in path[-1].input[1:3])
    if kinds != ["Transpose", "Cast", "Sub", "Div", "QuantizeLinear"] or (scale, zero_point) != (
        1 / std,
        mean,
    ):
        raise ConversionError(f"the pixels are not normalized as expected: {', '.join(kinds)}")
    for dequantize in consumers[value]:
        dequantize.input[0] = path[0].output[0]
    return drop_unused(model)


def _producers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {name: node for node in model.graph.node for name in node.output}


def _consumers(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    return consumers


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """The values of the initializers by name."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def output_axis(product: onnx.NodeProto) -> int:
    """The axis of a product's weights [K, N], or [N, K] in a turned Gemm, that is its outputs'."""
    return 0 if any(each.name == "transB" and each.i for each in product.attribute) else 1


def replace_node(model: onnx.ModelProto, old: onnx.NodeProto, new: list[onnx.NodeProto]) -> None:
    """Put `new` where `old` stands; in place."""
    nodes = list(model.graph.node)
    index = next(i for i, node in enumerate(nodes) if node is old or node == old)
    nodes[index : index + 1] = new
    del model.graph.node[:]
    model.graph.node.extend(nodes)
