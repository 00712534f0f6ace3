"""How fine int8 weights can be so that no x86 processor overflows.

Where there is no VNNI (Intel's servers before 2019, AMD's before 2022, many a laptop later), a
kernel multiplies two neighbouring bytes with their weights and adds the products in 16 bits
(`vpmaddubsw`), clipped to what these hold. The bytes go to 255, so two weights of together more
than 128 can be too much, and what is clipped is no rounding error: on such a processor the shipped
model lost 2.5 CIDEr by it. The usual remedy is weights of 7 bits. But most neighbours differ in
sign or are small: a channel whose step is chosen by its largest pair, not by its largest weight, is
safe as well, and its step is coarser by a quarter instead of twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from nanocap.convert.graphs.passes import constants, output_axis

Matrix = npt.NDArray[np.float32]
STEPS = 127  # of a byte on either side of zero; rounding adds one to a pair, and 255 * 128 < 2**15
SMALLEST = 1e-12  # largest weight of a channel of zeros


def weight_steps(matrix_NK: Matrix) -> npt.NDArray[np.float32]:
    """The step of each channel [N]; neighbours are 2k and 2k + 1 along what is summed over.

    Rounded to these steps no weight is beyond 127, and no pair of neighbours beyond 128.
    """
    even = matrix_NK[:, : matrix_NK.shape[1] // 2 * 2]
    pairs = np.abs(even[:, ::2] + even[:, 1::2]).max(1, initial=SMALLEST)
    return (np.maximum(np.abs(matrix_NK).max(1), pairs) / STEPS).astype(np.float32)


def weight_scales(
    model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]
) -> dict[str, list[dict[str, Any]]]:
    """Steps of the nodes' weights, channel by channel, as ONNX Runtime's quantizer takes them.

    Not of depthwise convolutions: they multiply a channel by itself, in 32 bits, and the
    quantizer's own scales are right for them.
    """
    weights, scales = constants(model), {}
    for node in nodes:
        found = _channels(node, weights)
        if found is not None:
            axis, matrix_NK = found
            zero = np.array(0, np.int8)
            scales[node.input[1]] = [
                {"axis": axis, "scale": step, "zero_point": zero}
                for step in weight_steps(matrix_NK)
            ]
    return scales


def _channels(
    node: onnx.NodeProto, weights: Mapping[str, npt.NDArray[Any]]
) -> tuple[int, Matrix] | None:
    """The axis of a node's channels, and its weights as [N, K] in the order of the sum."""
    attributes = {each.name: each.i for each in node.attribute}
    if node.op_type in ("MatMul", "Gemm"):
        axis, matrix = output_axis(node), weights[node.input[1]]
        return axis, matrix if axis == 0 else matrix.T
    if node.op_type == "Conv" and attributes.get("group", 1) == 1:
        filters = weights[node.input[1]]  # [out, in, height, width]; `in` is summed innermost
        return 0, filters.transpose(0, 2, 3, 1).reshape(len(filters), -1)
    return None
