"""Static int8 (QDQ) of the exported ONNX graphs.

Static rather than dynamic scales, in the decoder too: a dynamic scale is taken over the whole
tensor, so that the caption of a photo would depend on the photos and beams beside it.

What becomes int8 is what holds weights (convolutions, linear layers, the embedding) and, so that
the trunk stays in bytes from end to end, its residual sums. Attention's products, softmax, norms
and the reducers' comparisons stay fp32: they have no weights, take a tenth of the time, and a rank
decided on rounded similarities is another rank.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from nanocap.convert.errors import ConversionError
from nanocap.convert.graphs.passes import quantize_gather, quantize_pixels, quantize_tables
from nanocap.convert.graphs.sessions import folded
from nanocap.convert.quantization.blocks import Block, blocks
from nanocap.convert.quantization.calibration import (
    FeedSource,
    Ranges,
    choose_ranges,
    collect_histograms,
)
from nanocap.convert.quantization.ranges import Histogram
from nanocap.convert.quantization.saturation import weight_scales
from nanocap.student.trunk import PIXEL_MEAN, PIXEL_STD


@dataclass(frozen=True)
class Choice:
    """What there is to decide about one graph.

    Attributes:
        method: how activations' ranges are chosen, of `ranges.METHODS`.
        floats: blocks (see `blocks`) that stay in float.
    """

    method: str
    floats: tuple[str, ...] = ()


@dataclass(frozen=True)
class Int8Options:
    """How to quantize.

    Attributes:
        encoder, decoder: None: whatever loses least, by measurement (see `sensitivity`).
    """

    encoder: Choice | None = None
    decoder: Choice | None = None


@dataclass(frozen=True)
class Quantizable:
    """A float graph and what its values were seen to be: int8 in one way or another.

    Attributes:
        nodes: what becomes int8.
        exact: scale and zero point of values that need no range, as the quantizer takes them.
        finish: the last pass over the result.
    """

    model: onnx.ModelProto
    nodes: list[onnx.NodeProto]
    histograms: Mapping[str, Histogram]
    exact: Mapping[str, list[dict[str, Any]]]
    finish: Callable[[onnx.ModelProto], onnx.ModelProto]

    @classmethod
    def encoder(cls, model: onnx.ModelProto, feeds: FeedSource) -> Quantizable:
        """With an int8 trunk and linear layers; the pixels' bytes go in as they are."""
        nodes = _trunk(model) + linear_nodes(model)
        stem = next(node for node in nodes if node.op_type == "Conv")
        exact = {
            "scale": np.array(1 / PIXEL_STD, np.float32),
            "zero_point": np.array(PIXEL_MEAN, np.uint8),
            "quant_type": QuantType.QUInt8,
        }
        seen = collect_histograms(model, _activations(model, nodes), feeds)

        def finish(done: onnx.ModelProto) -> onnx.ModelProto:
            return quantize_tables(quantize_pixels(done, PIXEL_MEAN, PIXEL_STD))

        return cls(model, nodes, seen, {stem.input[0]: [exact]}, finish)

    @classmethod
    def decoder(cls, model: onnx.ModelProto, feeds: FeedSource) -> Quantizable:
        """With int8 linear layers and one int8 table for embedding and logits."""
        nodes = linear_nodes(model)
        seen = collect_histograms(model, _activations(model, nodes), feeds)
        return cls(model, nodes, seen, {}, quantize_gather)

    def blocks(self) -> list[Block]:
        """What can stay in float, in the order of the graph."""
        return blocks(self.model, self.nodes)

    def quantized(self, choice: Choice) -> onnx.ModelProto:
        """The graph in int8; this one is left as it is.

        Raises:
            ConversionError: there is no such method or block.
        """
        known = {block.name: block for block in self.blocks()}
        for name in choice.floats:
            if name not in known:
                raise ConversionError(f"no block {name!r} to leave in float; there are {[*known]}")
        left = {node for name in choice.floats for node in known[name].nodes}
        nodes = [node for node in self.nodes if node.name not in left]
        ranges = choose_ranges(self.histograms, choice.method)
        return self.finish(_quantize(self.model, nodes, ranges, self.exact))


PLAIN = Choice("minmax")


def quantize_encoder(
    model: onnx.ModelProto, feeds: FeedSource, options: Int8Options
) -> onnx.ModelProto:
    """The encoder in int8, as `options.encoder` says; `PLAIN` where it says nothing."""
    graph = Quantizable.encoder(model, feeds)
    return folded(graph.quantized(options.encoder or PLAIN))


def quantize_decoder(
    model: onnx.ModelProto, feeds: FeedSource, options: Int8Options
) -> onnx.ModelProto:
    """The decoder in int8, as `options.decoder` says; `PLAIN` where it says nothing."""
    graph = Quantizable.decoder(model, feeds)
    return folded(graph.quantized(options.decoder or PLAIN))


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


def float_layers(model: onnx.ModelProto, kinds: Collection[str]) -> int:
    """How many operators of these kinds hold weights in float."""
    held = {t.name for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
    return sum(n.op_type in kinds and n.input[1] in held for n in model.graph.node)


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
    exact: Mapping[str, list[dict[str, Any]]],
) -> onnx.ModelProto:
    typed = onnx.shape_inference.infer_shapes(model)  # the quantizer skips values without a type
    data = TensorsData(
        CalibrationMethod.MinMax,
        {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()},
    )
    quantizer = QDQQuantizer(
        typed,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=data,
        nodes_to_quantize=[node.name for node in nodes],
        nodes_to_exclude=[],
        op_types_to_quantize=sorted({node.op_type for node in nodes}),
        extra_options={
            # a linear layer's result goes on as the float that it was accumulated in
            "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"],
            "TensorQuantOverrides": {**exact, **weight_scales(model, nodes)},
        },
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    quantized: onnx.ModelProto = quantizer.model.model
    return quantized
