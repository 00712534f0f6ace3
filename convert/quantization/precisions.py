"""What each precision of ONNX makes of the two graphs: to add one is to add an entry.

Its name also stands in `nanocap.bundle.precisions`, for the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import onnx

from nanocap.convert.graphs.sessions import folded
from nanocap.convert.parity import BATCH_TOLERANCE
from nanocap.convert.quantization.calibration import FeedSource
from nanocap.convert.quantization.fp16 import emulate, halve
from nanocap.convert.quantization.int4 import quantize_blockwise
from nanocap.convert.quantization.int8 import Int8Options, quantize_decoder, quantize_encoder
from nanocap.convert.quantization.int8_dynamic import quantize_dynamically
from nanocap.convert.quantization.int8_weights import SESSION, quantize_weights

Maker = Callable[[onnx.ModelProto, FeedSource, Int8Options], onnx.ModelProto]
"""Takes an fp32 graph, inputs like those it will see, and options; leaves the graph as it is."""

CONVOLUTIONS = ("Conv", "FusedConv")
LINEAR = ("Gemm", "FusedGemm")
A_STEP = 0.05  # of the largest key, value or logit, in fp16 or int8


@dataclass(frozen=True)
class Precision:
    """How the graphs of a precision are made and checked.

    Attributes:
        encoder, decoder: make the graph from the fp32 one.
        calibrated: whether the inputs must be photos such as it will see.
        float_encoder, float_decoder: operators that must not run in float in the end.
        batch_tolerance: how far a photo in a batch may be from the same alone, as a share of the
            largest value. A float sum depends on the batch in its last digits; rounding what comes
            of it can carry that to a step.
        fused: the graphs in which ONNX Runtime's own operators take the place of Q/DQ pairs in the
            end. Not those whose weights become floats when they are loaded: floats would be stored.
        session: entries of ONNX Runtime's session configuration that the graphs need.
        emulate: makes of a graph one that computes on a CPU as other processors do with the graph.
    """

    encoder: Maker
    decoder: Maker
    calibrated: bool = False
    float_encoder: tuple[str, ...] = ()
    float_decoder: tuple[str, ...] = ()
    batch_tolerance: float = BATCH_TOLERANCE
    fused: tuple[str, ...] = ()
    session: Mapping[str, str] = field(default_factory=dict)
    emulate: Callable[[onnx.ModelProto], onnx.ModelProto] | None = None


def _single(model: onnx.ModelProto, feeds: FeedSource, options: Int8Options) -> onnx.ModelProto:
    return folded(model)


def _half(model: onnx.ModelProto, feeds: FeedSource, options: Int8Options) -> onnx.ModelProto:
    return halve(model, feeds)


def _dynamic(model: onnx.ModelProto, feeds: FeedSource, options: Int8Options) -> onnx.ModelProto:
    return quantize_dynamically(model)


def _weights(model: onnx.ModelProto, feeds: FeedSource, options: Int8Options) -> onnx.ModelProto:
    return quantize_weights(folded(model))


def _blockwise(model: onnx.ModelProto, feeds: FeedSource, options: Int8Options) -> onnx.ModelProto:
    return quantize_blockwise(model)


PRECISIONS: dict[str, Precision] = {
    "int8": Precision(
        quantize_encoder,
        quantize_decoder,
        calibrated=True,
        float_encoder=CONVOLUTIONS + LINEAR,
        float_decoder=LINEAR,
        fused=("encoder", "decoder"),
        batch_tolerance=A_STEP,  # what stays float is rounded to int8 behind it
    ),
    "fp32": Precision(_single, _single),
    "fp16": Precision(_half, _half, batch_tolerance=A_STEP, emulate=emulate),
    "int8-weights": Precision(_weights, _weights, session=SESSION),
    "int8-dynamic": Precision(
        _dynamic,
        _dynamic,
        float_encoder=LINEAR,
        float_decoder=LINEAR,
        batch_tolerance=A_STEP,
    ),
    "int4": Precision(
        quantize_encoder,
        _blockwise,
        calibrated=True,
        float_encoder=CONVOLUTIONS + LINEAR,
        float_decoder=LINEAR,
        batch_tolerance=A_STEP,  # activations are rounded to int8 on the spot
        fused=("encoder",),
    ),
}
