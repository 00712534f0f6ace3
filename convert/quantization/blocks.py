"""The blocks of a graph: what int8 may leave in float, and what that would cost."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from nanocap.convert.graphs.passes import constants

HOLDERS = ("Conv", "MatMul", "Gemm")  # operators with weights
NUMBERED = re.compile(r"(.*\.\d+)\.")  # `encoder.blocks.1.` of `encoder.blocks.1.mlp.up.weight`
SAVED_BYTES = 3  # by int8, of the 4 of a float


@dataclass(frozen=True)
class Block:
    """Layers that belong together, such as an inverted residual or a layer of the decoder.

    Attributes:
        name: of the module in the student that they are.
        nodes: names of graph nodes, those included that only hand their results on.
        bytes: by which the file grows if it stays in float.
        share: of the graph's multiplications by weights.
    """

    name: str
    nodes: frozenset[str]
    bytes: int
    share: float


def blocks(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]) -> list[Block]:
    """Those of the nodes that are to become int8, in the order of the graph.

    A convolution alone is no block: between integers ONNX Runtime quantizes it by itself, with one
    scale for all channels (its WeightBiasQuantization), which loses more than int8 does.
    """
    weights, shapes = constants(model), _shapes(model)
    names = _layers(model, nodes)
    made: dict[str, str] = {}  # the block that made a value
    members: dict[str, list[onnx.NodeProto]] = {}
    chosen = {node.name for node in nodes}
    for node in (node for node in model.graph.node if node.name in chosen):
        sources = [made[name] for name in node.input if name in made]
        last = max(sources, key=list(members).index, default=node.name)
        block = _block(names[node.name]) if node.op_type in HOLDERS else last
        members.setdefault(block, []).append(node)
        made.update(dict.fromkeys(node.output, block))
    size = {n.name: weights[n.input[1]].size for n in nodes if n.op_type in HOLDERS}
    work = {n.name: size[n.name] * _places(n, shapes[n.output[0]]) for n in nodes if n.name in size}
    total = sum(work.values())
    return [
        Block(
            name,
            frozenset(node.name for node in some),
            SAVED_BYTES * sum(size.get(node.name, 0) for node in some),
            sum(work.get(node.name, 0) for node in some) / total,
        )
        for name, some in members.items()
        if _can_stay(some)
    ]


def _can_stay(nodes: Sequence[onnx.NodeProto]) -> bool:
    kinds = Counter(node.op_type for node in nodes)
    return kinds["Conv"] != 1 and sum(kinds[kind] for kind in HOLDERS) > 0


def _block(layer: str) -> str:
    """To its last number, or all of it."""
    found = NUMBERED.match(layer)
    return found[1] if found else layer.rpartition(".")[0] or layer


def _layers(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]) -> dict[str, str]:
    """The parameter of the student by node: its weight, or its bias where tracing turned that."""
    held = {tensor.name for tensor in model.graph.initializer}
    biases = {
        value: name
        for node in model.graph.node
        if node.op_type == "Add"
        for value in node.input
        for name in node.input
        if name in held and "." in name
    }
    return {
        node.name: node.input[1] if "." in node.input[1] else biases.get(node.output[0], node.name)
        for node in nodes
        if node.op_type in HOLDERS
    }


def _shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Of every value; a free axis is 1."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    return {
        value.name: [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.output)
    }


def _places(node: onnx.NodeProto, shape: Sequence[int]) -> int:
    """How often the weights are used for one photo: the area of a map, or a number of tokens."""
    return int(np.prod(shape[2:] if node.op_type == "Conv" else shape[:-1]))
