"""4-bit weights for the decoder: `MatMulNBits`, one scale a block of weights.

A block is 32 neighbours of what one output is summed from; its scale has 16 bits. So a weight takes
4.5 bits.
Activations are floats, which a CPU rounds to int8 in blocks of a row while it multiplies; so
nothing is calibrated, and a row does not depend on its neighbours. The embedding is one packed
table, for the logits and for the input.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from nanocap.convert.errors import ConversionError
from nanocap.convert.graphs.passes import constants, drop_unused, output_axis, replace_node
from nanocap.convert.quantization.int8 import linear_nodes

BITS = 4
BLOCK = 32  # weights a scale
ZERO = 1 << (BITS - 1)  # what stands for 0, MatMulNBits' default
SHRINKS = np.linspace(0.75, 1.05, 31)  # scales that are tried, as a share of the one that clips not
INT8_PRODUCTS = 4  # of accuracy_level: a CPU may round activations to int8, block by block
DOMAIN = "com.microsoft"


def quantize_blockwise(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the graph with 4-bit linear layers and tables; all else is float as it was.

    Raises:
        ConversionError: a layer's inputs cannot be cut into blocks.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph, weights = result.graph, constants(result)
    packed_already: set[str] = set()  # the embedding is met once as weights and once as a table
    for node in linear_nodes(result):
        name = node.input[1]
        matrix_NK = weights[name] if output_axis(node) == 0 else weights[name].T
        if name not in packed_already:
            packed_already.add(name)
            packed, scale = pack(matrix_NK)
            graph.initializer.append(numpy_helper.from_array(packed, f"{name}_packed"))
            graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale16"))
            # ONNX Runtime folds it when it loads; the file is smaller by a tenth
            widen = helper.make_node(
                "Cast",
                [f"{name}_scale16"],
                [f"{name}_scale"],
                f"{name}_widen",
                to=TensorProto.FLOAT,
            )
            graph.node.insert(0, widen)
        product = helper.make_node(
            "MatMulNBits",
            [node.input[0], f"{name}_packed", f"{name}_scale"],
            [node.output[0]],
            node.name,
            domain=DOMAIN,
            N=matrix_NK.shape[0],
            K=matrix_NK.shape[1],
            bits=BITS,
            block_size=BLOCK,
            accuracy_level=INT8_PRODUCTS,
        )
        if len(node.input) > 2:
            product.input.extend(["", "", node.input[2]])  # no zero points, no order of groups
        replace_node(result, node, [product])
    for node in [n for n in graph.node if n.op_type == "Gather" and n.input[0] in packed_already]:
        replace_node(result, node, _unpacked_rows(node))
    graph.initializer.extend(_unpacking())
    result.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return drop_unused(result)


def pack(
    matrix_NK: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float16]]:
    """`MatMulNBits`' weights [N, blocks, BLOCK / 2] and scales [N, blocks].

    Of each block's possible scales the one with the least squared error is taken; its sign is that
    of the largest weight, because there are eight steps below zero and seven above.
    """
    rows, columns = matrix_NK.shape
    if columns % BLOCK:
        raise ConversionError(
            f"int4 cuts the inputs of a layer into blocks of {BLOCK}, and one has {columns}; train"
            f" a student whose width is a multiple of {BLOCK}, or choose int8"
        )
    blocks = matrix_NK.reshape(-1, BLOCK)
    largest = blocks[np.arange(len(blocks)), np.abs(blocks).argmax(1)]
    whole = np.where(largest == 0, 1, largest / -ZERO)
    best = np.full(len(blocks), np.inf)
    scale = np.ones(len(blocks), np.float16)
    for shrink in SHRINKS:
        tried = (whole * shrink).astype(np.float16)
        tried[tried == 0] = np.finfo(np.float16).tiny
        error = ((_steps(blocks, tried) * tried[:, None].astype(np.float32) - blocks) ** 2).sum(1)
        better = error < best
        best, scale = np.where(better, error, best), np.where(better, tried, scale)
    steps = (_steps(blocks, scale) + ZERO).astype(np.uint8).reshape(rows, -1, BLOCK)
    packed = np.bitwise_or(steps[..., 0::2], steps[..., 1::2] << BITS, dtype=np.uint8)
    return packed, scale.reshape(rows, -1)


def _steps(
    blocks: npt.NDArray[np.float32], scale: npt.NDArray[np.float16]
) -> npt.NDArray[np.float32]:
    return np.clip(np.rint(blocks / scale[:, None].astype(np.float32)), -ZERO, ZERO - 1)


def _unpacked_rows(gather: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Rows of a packed table as floats: bytes, their halves side by side, scaled."""
    table, rows, out = gather.input[0], gather.input[1], gather.output[0]
    steps: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("Gather", [f"{table}_packed", rows], "bytes", {}),
        ("BitwiseAnd", [f"{out}_bytes", "half_mask"], "low", {}),
        ("BitShift", [f"{out}_bytes", "half_bits"], "high", {"direction": "RIGHT"}),
        ("Unsqueeze", [f"{out}_low", "halves_axis"], "low_1", {}),
        ("Unsqueeze", [f"{out}_high", "halves_axis"], "high_1", {}),
        ("Concat", [f"{out}_low_1", f"{out}_high_1"], "pairs", {"axis": -1}),
        ("Reshape", [f"{out}_pairs", "blocks_shape"], "steps", {}),
        ("Cast", [f"{out}_steps"], "whole", {"to": TensorProto.FLOAT}),
        ("Sub", [f"{out}_whole", "zero_step"], "signed", {}),
        ("Gather", [f"{table}_scale", rows], "scale", {}),
        ("Unsqueeze", [f"{out}_scale", "halves_axis"], "scale_1", {}),
        ("Mul", [f"{out}_signed", f"{out}_scale_1"], "scaled", {}),
    ]
    nodes = [
        helper.make_node(kind, inputs, [f"{out}_{result}"], f"{out}_{result}", **attributes)
        for kind, inputs, result, attributes in steps
    ]
    last = helper.make_node("Reshape", [f"{out}_scaled", "rows_shape"], [out], f"{out}_rows")
    return [*nodes, last]


def _unpacking() -> list[onnx.TensorProto]:
    values: dict[str, npt.NDArray[Any]] = {
        "half_mask": np.array(ZERO * 2 - 1, np.uint8),
        "half_bits": np.array(BITS, np.uint8),
        "halves_axis": np.array([-1], np.int64),
        "blocks_shape": np.array([0, 0, BLOCK], np.int64),
        "rows_shape": np.array([0, -1], np.int64),
        "zero_step": np.array(ZERO, np.float32),
    }
    return [numpy_helper.from_array(value, name) for name, value in values.items()]
