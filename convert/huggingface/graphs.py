"""The ONNX files that Optimum and transformers.js run: a VisionEncoderDecoder's two graphs.

They differ from a bundle's in what goes in and out: any size of photo as floats, hidden states
between the two, a cache that grows with the text, and one name a layer.

Shapes: B images, H and W of the photo, S of the student, N visual tokens, D width, h heads,
T pieces fed, P pieces before them, V ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import onnx
import torch
from onnx import compose, helper, numpy_helper
from torch import Tensor
from torch.export import Dim

from nanocap.convert.graphs.modules import Graph, Shapes
from nanocap.convert.graphs.passes import clean
from nanocap.convert.graphs.tracing import OPSET, trace
from nanocap.student import Student
from nanocap.student.decoder import DecoderLayer
from nanocap.student.layers import MASKED, attend, split_heads
from nanocap.student.trunk import PIXEL_MEAN, PIXEL_STD

UINT8 = onnx.TensorProto.UINT8
EXAMPLE = (2, 3, 5)  # images, pieces, pieces before them: no axis of 1, no two alike
# transformers.js makes the first, empty cache from these names: what is no batch is 0 long
BATCH, PAST = "batch_size", "past_sequence_length"


class HiddenGraph(Graph):
    """`resized` uint8 [B, 3, S, S] to `last_hidden_state` [B, N, D]."""

    inputs = ("resized",)
    outputs = ("last_hidden_state",)

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.encoder = student.encoder

    def forward(self, resized: Tensor) -> Tensor:
        return self.encoder((resized.float() - PIXEL_MEAN) / PIXEL_STD).tokens


class PastGraph(Graph):
    """`input_ids` [B, T], `encoder_hidden_states` [B, N, D] and the past to `logits` [B, T, V].

    Keys and values of the past [B, h, P, D / h] come and go layer by layer. An empty past (P = 0)
    is a caption's beginning: the graph needs no branch for it.
    """

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.decoder, self.heads = student.decoder, student.dimensions.heads
        layers = range(student.dimensions.decoder_layers)
        cache = [f"{layer}.{part}" for layer in layers for part in ("key", "value")]
        past = tuple(f"past_key_values.{name}" for name in cache)
        self.inputs = ("input_ids", "encoder_hidden_states", *past)
        self.outputs = ("logits", *(f"present.{name}" for name in cache))

    def axes(self) -> dict[str, dict[int, str]]:
        """Names of the axes whose length is free."""
        total = "past_sequence_length + sequence_length"
        return {
            "input_ids": {0: BATCH, 1: "sequence_length"},
            "encoder_hidden_states": {0: BATCH, 1: "encoder_sequence_length"},
            "logits": {0: BATCH, 1: "sequence_length"},
            **{name: {0: BATCH, 2: PAST} for name in self.inputs[2:]},
            **{name: {0: BATCH, 2: total} for name in self.outputs[1:]},
        }

    def shapes(self, axes: Mapping[str, dict[int, str]]) -> Shapes:
        ids, hidden, *past = (dict.fromkeys(axes[name], Dim.DYNAMIC) for name in self.inputs)
        return {"input_ids": ids, "encoder_hidden_states": hidden, "past": tuple(past)}

    def forward(
        self, input_ids: Tensor, encoder_hidden_states: Tensor, *past: Tensor
    ) -> tuple[Tensor, ...]:
        decoder, before = self.decoder, past[0].shape[2]
        places = torch.arange(before + input_ids.shape[1])
        here = places[before:]
        ahead = (places > here.unsqueeze(1)).float() * MASKED  # [T, P + T]
        x_BTD = decoder.embedding(input_ids) + decoder.positions[here]
        present: list[Tensor] = []
        for index, module in enumerate(decoder.layers):
            layer = cast(DecoderLayer, module)
            h = layer.norm_self(x_BTD)
            key = torch.cat([past[2 * index], split_heads(layer.key(h), self.heads)], 2)
            value = torch.cat([past[2 * index + 1], split_heads(layer.value(h), self.heads)], 2)
            present += [key, value]
            x_BTD = x_BTD + layer.out(attend_split(layer.query(h), key, value, ahead))
            h = layer.cross_query(layer.norm_cross(x_BTD))
            keys, values = (
                layer.cross_key(encoder_hidden_states),
                layer.cross_value(encoder_hidden_states),
            )
            x_BTD = x_BTD + layer.cross_out(attend(h, keys, values, self.heads, None))
            x_BTD = x_BTD + layer.mlp(layer.norm_mlp(x_BTD))
        return decoder.logits(decoder.norm(x_BTD)), *present


def attend_split(query_BTD: Tensor, key_BhMC: Tensor, value_BhMC: Tensor, bias: Tensor) -> Tensor:
    """Attention of [B, T, D] over keys and values whose heads are apart already; [B, T, D]."""
    heads, channels = key_BhMC.shape[1], key_BhMC.shape[3]
    query = split_heads(query_BTD, heads) * channels**-0.5
    weights = torch.softmax(query @ key_BhMC.transpose(2, 3) + bias, 3)
    return (weights @ value_BhMC).transpose(1, 2).reshape(query_BTD.shape)


def encoder_model(student: Student) -> bytes:
    """`encoder_model.onnx`: `pixel_values` float [B, 3, H, W], 0 to 255, of any size."""
    size = student.dimensions.image_size
    example = (torch.zeros(EXAMPLE[0], 3, size, size, dtype=torch.uint8),)
    batch = {0: BATCH}
    hidden = trace(HiddenGraph(student), example, {"resized": batch, "last_hidden_state": batch})
    resize = resize_model(size, hidden.ir_version)
    model = compose.merge_models(resize, hidden, [("resized", "resized")])
    pixels = {0: BATCH, 2: "height", 3: "width"}
    clean(model, {"pixel_values": pixels, "last_hidden_state": batch})
    return _finished(model)


def decoder_model(student: Student) -> bytes:
    """`decoder_model_merged.onnx`: with a past, which may be empty."""
    dimensions, (images, pieces, before) = student.dimensions, EXAMPLE
    graph = PastGraph(student)
    cache = (images, dimensions.heads, before, dimensions.width // dimensions.heads)
    example = (
        torch.zeros(images, pieces, dtype=torch.int64),
        torch.zeros(images, dimensions.visual_tokens, dimensions.width),
        # each a tensor of its own: the exporter takes one tensor given twice for one input
        *(torch.zeros(cache) for _ in graph.inputs[2:]),
    )
    return _finished(trace(graph, example, graph.axes()))


def resize_model(size: int, ir_version: int = 10) -> onnx.ModelProto:
    """`nanocap.image`'s resize, `pixel_values` to bytes `resized`: the rows, then the columns.

    On bytes ONNX Runtime's antialiased resize is written after Pillow's. One value in a hundred or
    so differs, by one: its weights are rounded otherwise.
    """
    shrink: dict[str, Any] = {
        "antialias": 1,
        "coordinate_transformation_mode": "half_pixel",
        "exclude_outside": 1,  # weights at the edge are scaled up, as Pillow's are
        "mode": "linear",
    }
    nodes = [
        helper.make_node("Cast", ["pixel_values"], ["bytes"], to=UINT8),
        helper.make_node("Resize", ["bytes", "", "", "side"], ["narrow"], axes=[3], **shrink),
        helper.make_node("Resize", ["narrow", "", "", "side"], ["resized"], axes=[2], **shrink),
    ]
    pixels, resized = (
        helper.make_tensor_value_info("pixel_values", onnx.TensorProto.FLOAT, [BATCH, 3, "h", "w"]),
        helper.make_tensor_value_info("resized", UINT8, [BATCH, 3, size, size]),
    )
    side = numpy_helper.from_array(np.array([size], np.int64), "side")
    graph = helper.make_graph(nodes, "resize", [pixels], [resized], [side])
    opset = helper.make_opsetid("", OPSET)
    return helper.make_model(graph, opset_imports=[opset], ir_version=ir_version)


def _finished(model: onnx.ModelProto) -> bytes:
    model.producer_name, model.producer_version = "nanocap", ""
    onnx.checker.check_model(model)
    return model.SerializeToString()
