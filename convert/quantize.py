"""Static int8 (QDQ) of the exported ONNX graphs.

Static rather than dynamic scales, in the decoder too: a dynamic scale is taken over the whole
tensor, so that the caption of a photo would depend on the photos and beams beside it.

What becomes int8 is what holds weights (convolutions, linear layers, the embedding) and, so that
the trunk stays in bytes from end to end, its residual sums. Attention's products, softmax, norms
and the reducers' comparisons stay fp32: they have no weights, take a tenth of the time, and a rank
decided on rounded similarities is another rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from nanocap.convert.calibration import FeedSource, Ranges, collect_ranges
from nanocap.convert.tidy import quantize_gather, quantize_pixels
from nanocap.student.trunk import PIXEL_MEAN, PIXEL_STD


@dataclass(frozen=True)
class Int8Options:
    """How to quantize.

    Attributes:
        encoder_method, decoder_method: how activations' ranges are chosen, see
            `calibration.METHODS`.
        reduce_range: 7-bit weights. On x86 without VNNI (before 2019 or so) the 8-bit kernel adds
            pairs of products in 16 bits and can saturate; 7 bits cannot. It costs precision on
            every other processor, ARM and WebAssembly among them, so it is off.
    """

    encoder_method: str = "minmax"
    decoder_method: str = "minmax"
    reduce_range: bool = False


def quantize_encoder(
    model: onnx.ModelProto, feeds: FeedSource, options: Int8Options
) -> onnx.ModelProto:
    """The encoder with an int8 trunk and linear layers; the pixels' bytes go in as they are."""
    nodes = _trunk(model) + linear_nodes(model)
    stem = next(node for node in nodes if node.op_type == "Conv")
    exact = {
        "scale": np.array(1 / PIXEL_STD, np.float32),
        "zero_point": np.array(PIXEL_MEAN, np.uint8),
        "quant_type": QuantType.QUInt8,
    }
    ranges = collect_ranges(model, _activations(model, nodes), feeds, options.encoder_method)
    quantized = _quantize(model, nodes, ranges, options, {stem.input[0]: [exact]})
    return quantize_pixels(quantized, PIXEL_MEAN, PIXEL_STD)


def quantize_decoder(
    model: onnx.ModelProto, feeds: FeedSource, options: Int8Options
) -> onnx.ModelProto:
    """The decoder with int8 linear layers and one int8 table for embedding and logits."""
    nodes = linear_nodes(model)
    ranges = collect_ranges(model, _activations(model, nodes), feeds, options.decoder_method)
    return quantize_gather(_quantize(model, nodes, ranges, options, {}))


def _trunk(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Convolutions, their ReLU6, residual sums, and what only moves their results about."""
    nodes: list[onnx.NodeProto] = []
    inside: set[str] = set()  # values that convolutions made
    constants = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        data = [name for name in node.input if name not in constants]
        if node.op_type == "Conv" or (
            node.op_type in ("Clip", "Add", "Reshape", "Transpose") and inside.issuperset(data)
        ):
            nodes.append(node)
            inside.update(node.output)
    return nodes


def linear_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Products with a matrix of weights."""
    weights = {tensor.name for tensor in model.graph.initializer if _is_weight(tensor)}
    return [
        node
        for node in model.graph.node
        if node.op_type in ("MatMul", "Gemm") and node.input[1] in weights
    ]


def _is_weight(tensor: onnx.TensorProto) -> bool:
    """Whether it is a trained matrix; the reducers' own hold zeros and ones, to count with."""
    if len(tensor.dims) != 2 or tensor.data_type != onnx.TensorProto.FLOAT:
        return False
    values = numpy_helper.to_array(tensor)
    return not np.isin(values, (0, 1)).all()


def _activations(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> set[str]:
    """Values whose ranges the quantizer asks for."""
    constants = {tensor.name for tensor in model.graph.initializer}
    values = {name for node in nodes for name in node.input if name and name not in constants}
    kept_float = ("MatMul", "Gemm")
    return values | {node.output[0] for node in nodes if node.op_type not in kept_float}


def _quantize(
    model: onnx.ModelProto,
    nodes: list[onnx.NodeProto],
    ranges: Ranges,
    options: Int8Options,
    overrides: Mapping[str, list[dict[str, Any]]],
) -> onnx.ModelProto:
    typed = onnx.shape_inference.infer_shapes(model)  # the quantizer skips values without a type
    data = TensorsData(
        CalibrationMethod.MinMax,
        {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()},
    )
    quantizer = QDQQuantizer(
        typed,
        per_channel=True,
        reduce_range=options.reduce_range,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=data,
        nodes_to_quantize=[node.name for node in nodes],
        nodes_to_exclude=[],
        op_types_to_quantize=sorted({node.op_type for node in nodes}),
        extra_options={
            # a linear layer's result goes on as the float that it was accumulated in
            "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"],
            "TensorQuantOverrides": dict(overrides),
        },
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    quantized: onnx.ModelProto = quantizer.model.model
    contrib = [o for o in quantized.opset_import if o.domain not in ("", "ai.onnx")]
    for entry in contrib:  # declared by the quantizer, used by no node of these graphs
        if not any(node.domain == entry.domain for node in quantized.graph.node):
            quantized.opset_import.remove(entry)
    return quantized
