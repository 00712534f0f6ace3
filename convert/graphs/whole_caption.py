"""One graph from the pixels of a photo to the ids of its caption.

Resize, normalization and the greedy loop are inside, so that any language that has ONNX Runtime
captions with one call and a table of pieces (which the file carries as metadata).
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from nanocap.bundle import TOKENIZER, Bundle
from nanocap.bundle.manifest import Artifact, Manifest, never_generated
from nanocap.bundle.vocabulary import Vocabulary
from nanocap.convert.errors import ConversionError
from nanocap.repeats import WAYS, Repeats

MODES: dict[str, dict[str, Any]] = {
    "bilinear": {"mode": "linear"},
    "bicubic": {"mode": "cubic", "cubic_coeff_a": -0.5},  # Pillow's
}
NEVER = -1e30
WINDOW = max(2 * length - 1 + between for length, between in WAYS)  # pieces that a repeat may span
FIRST = 1  # the iteration of the first piece; the one before feeds the quality alone
NAMES = {"rename_inputs": False, "rename_outputs": False}  # by which the two graphs meet


def whole_caption(bundle: Bundle, artifact: Artifact) -> onnx.ModelProto:
    """The graph `image` uint8 [height, width, 3] to `ids` int64 [pieces], the end left out.

    Greedy, with the bundle's default quality and length. The pieces are in the metadata as
    `pieces`, a JSON list; text is their join, with "\u2581" for a space.

    Raises:
        ConversionError: the artifact is of another backend, or its image rule has no operator.
        BundleError: a file is missing or altered.
    """
    manifest = bundle.manifest
    if artifact.backend != "onnx":
        raise ConversionError(f"{artifact.name}: its backend is {artifact.backend}, not onnx")
    if (manifest.image.fit, manifest.image.resample in MODES) != ("squash", True):
        raise ConversionError(f"no operator resizes as the image rule asks: {manifest.image}")
    encoder, decoder = (
        compose.add_prefix(
            onnx.load_from_string(bundle.read(artifact.files[role])), f"{role}/", **NAMES
        )
        for role in ("encoder", "decoder")
    )
    resize, constants = _resize(manifest)
    size = manifest.sizes.vocabulary
    vocabulary = Vocabulary.from_json(bundle.read(TOKENIZER), size)
    body = _step(manifest, decoder.graph, vocabulary)
    loop = helper.make_node(
        "Loop",
        ["steps", "", "quality", "no_keys", "no_values", "no_past"],
        ["last", "last_keys", "last_values", "last_past", "chosen"],
        name="loop",
        body=body,
    )
    cut = [
        helper.make_node("Slice", ["chosen", "from", "far", "first_axis"], ["with_end"]),
        helper.make_node("Equal", ["with_end", "end"], ["ends"]),
        helper.make_node("Not", ["ends"], ["pieces_only"]),
        helper.make_node("Compress", ["with_end", "pieces_only"], ["ids"], axis=0),
    ]
    graph = helper.make_graph(
        [*resize, *encoder.graph.node, loop, *cut],
        "caption",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["height", "width", 3])],
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["pieces"])],
        [*encoder.graph.initializer, *_tensors(constants | _outer(manifest))],
    )
    domains = {entry.domain: entry for entry in (*encoder.opset_import, *decoder.opset_import)}
    model = helper.make_model(
        graph, opset_imports=list(domains.values()), ir_version=encoder.ir_version
    )
    model.producer_name = "nanocap"
    helper.set_model_props(model, {"pieces": json.dumps(vocabulary.pieces)})
    onnx.checker.check_model(model)
    return model


def _resize(manifest: Manifest) -> tuple[list[onnx.NodeProto], dict[str, Any]]:
    """Bytes of any size to the encoder's `pixels`, as Pillow resizes them.

    Photos of the model's own size are let through. That there is one photo is then hidden from
    ONNX Runtime: where it knows, it makes a Gemm of each integer MatMul with its sum, and computes
    that in float.
    """
    mode = MODES[manifest.image.resample]
    size = manifest.image.size
    node, info = helper.make_node, helper.make_tensor_value_info
    shape = [1, None, None, 3]
    as_is = helper.make_graph(
        [node("Unsqueeze", ["image", "first_axis"], ["image_1SS3"])],
        "as_it_is",
        [],
        [info("image_1SS3", TensorProto.UINT8, shape)],
    )
    resized = helper.make_graph(
        [
            node("Unsqueeze", ["image", "first_axis"], ["image_1HW3"]),
            node("Transpose", ["image_1HW3"], ["image_13HW"], perm=[0, 3, 1, 2]),
            node("Resize", ["image_13HW", "", "", "square"], ["small_13SS"], antialias=1, **mode),
            node("Transpose", ["small_13SS"], ["small_1SS3"], perm=[0, 2, 3, 1]),
        ],
        "resized",
        [],
        [info("small_1SS3", TensorProto.UINT8, shape)],
    )
    nodes = [
        node("Shape", ["image"], ["image_shape"]),
        node("Equal", ["image_shape", "own_shape"], ["same_sides"]),
        node("Cast", ["same_sides"], ["same_counts"], to=TensorProto.INT32),
        node("ReduceMin", ["same_counts"], ["same_count"], keepdims=0),
        node("Cast", ["same_count"], ["is_own_size"], to=TensorProto.BOOL),
        node("If", ["is_own_size"], ["photo"], then_branch=as_is, else_branch=resized),
        node("Reshape", ["photo", "batch_shape"], ["pixels"]),
    ]
    constants = {"square": [1, 3, size, size], "own_shape": [size, size, 3], "first_axis": [0]}
    constants["batch_shape"] = [-1, size, size, 3]
    return nodes, {name: np.array(value) for name, value in constants.items()}


def _outer(manifest: Manifest) -> dict[str, Any]:
    """What the loop starts from, and what its result is cut with."""
    sizes, decoding = manifest.sizes, manifest.decoding
    cache = np.zeros((sizes.layers, 1, sizes.max_tokens, sizes.cache_width), np.float32)
    return {
        "steps": np.array(sizes.max_tokens),
        "quality": np.array([[manifest.controls.quality[decoding.quality]]]),
        "no_keys": cache,
        "no_values": cache,
        "no_past": np.full(WINDOW, manifest.tokens.pad),  # which starts no word
        "from": np.array([FIRST]),
        "far": np.array([sizes.max_tokens]),
        "end": np.array(manifest.tokens.end),
    }


def _step(manifest: Manifest, decoder: onnx.GraphProto, vocabulary: Vocabulary) -> onnx.GraphProto:
    """One position: the token before it, to the token after it. The cross-attention is outside."""
    tokens, controls, sizes = manifest.tokens, manifest.controls, manifest.sizes
    barred = np.zeros(sizes.vocabulary, np.float32)
    barred[list(never_generated(tokens, controls, vocabulary.special))] = NEVER
    no_end = np.zeros(sizes.vocabulary, np.float32)
    no_end[tokens.end] = NEVER  # an empty caption is no answer
    constants = {
        "one": np.array([1]),
        "zero_step": np.array(0),
        "first_step": np.array(FIRST),
        "barred": barred,
        "no_end": no_end,
        "length": np.array([[controls.length[manifest.decoding.length]]]),
        "end_id": np.array(tokens.end),
        "scalar": np.array([], np.int64),
        "past_end": np.array([WINDOW]),
        **_ways(Repeats.of(vocabulary.pieces)),
    }
    node = helper.make_node
    nodes = [
        node("Reshape", ["step", "one"], ["position"]),
        *decoder.node,
        node("Equal", ["step", "first_step"], ["is_first"]),
        node("Cast", ["is_first"], ["is_first_float"], to=TensorProto.FLOAT),
        node("Mul", ["no_end", "is_first_float"], ["no_end_here"]),
        node("Add", ["logits", "barred"], ["allowed"]),
        node("Add", ["allowed", "no_end_here"], ["allowed_here"]),
        *_without_repeats("allowed_here", "said_once"),
        node("ArgMax", ["said_once"], ["likeliest"], axis=2, keepdims=0),
        node("Equal", ["step", "zero_step"], ["is_control"]),
        node("Where", ["is_control", "length", "likeliest"], ["next"]),
        node("Reshape", ["next", "scalar"], ["piece"]),
        node("Equal", ["piece", "end_id"], ["is_end"]),
        node("Not", ["is_end"], ["goes_on"]),
        node("Reshape", ["piece", "one"], ["last_piece"]),
        node("Slice", ["past", "one", "past_end"], ["younger"]),
        node("Concat", ["younger", "last_piece"], ["new_past"], axis=0),
    ]
    info = helper.make_tensor_value_info
    cache = [sizes.layers, 1, sizes.max_tokens, sizes.cache_width]
    return helper.make_graph(
        nodes,
        "step",
        [
            info("step", TensorProto.INT64, []),
            info("going", TensorProto.BOOL, []),
            info("tokens", TensorProto.INT64, [1, 1]),
            info("keys", TensorProto.FLOAT, cache),
            info("values", TensorProto.FLOAT, cache),
            info("past", TensorProto.INT64, [WINDOW]),
        ],
        [
            info("goes_on", TensorProto.BOOL, []),
            info("next", TensorProto.INT64, [1, 1]),
            info("new_keys", TensorProto.FLOAT, cache),
            info("new_values", TensorProto.FLOAT, cache),
            info("new_past", TensorProto.INT64, [WINDOW]),
            info("piece", TensorProto.INT64, []),
        ],
        [*decoder.initializer, *_tensors(constants)],
    )


def _ways(repeats: Repeats) -> dict[str, Any]:
    """The ways to repeat a phrase as places in the last pieces, for `_without_repeats`."""
    length, between = np.array(WAYS).T
    first = WINDOW + 1 - 2 * length - between
    last = first + length - 1
    left, right = np.zeros((2, len(WAYS), max(length) - 1), np.int64)  # 0 and 0 are the same place
    for way, count in enumerate(length - 1):
        left[way, :count] = np.arange(first[way], last[way])
        right[way, :count] = np.arange(WINDOW - count, WINDOW)
    starts = np.array(repeats.starts)
    return {
        "left": left,
        "right": right,
        "first": first,
        "again": last,
        "between": np.minimum(last + 1, WINDOW - 1),
        "starts": starts.astype(np.int32),
        "joins": np.isin(np.arange(len(starts)), list(repeats.joins)).astype(np.int32),
        "alone": (between == 0).astype(np.int32),
        "never_again": np.float32(NEVER),
        "logits_shape": np.array([1, 1, -1]),
        "flat": np.array([-1]),
        "column": np.array([-1, 1]),
    }


def _without_repeats(logits: str, result: str) -> list[onnx.NodeProto]:
    """Logits [1, 1, V] less those of pieces that `Repeats` bars after `past`."""
    node = helper.make_node
    return [
        node("Gather", ["past", "left"], ["left_pieces"]),
        node("Gather", ["past", "right"], ["right_pieces"]),
        node("Equal", ["left_pieces", "right_pieces"], ["pieces_same"]),
        node("Cast", ["pieces_same"], ["pieces_same_01"], to=TensorProto.INT32),
        node("ReduceMin", ["pieces_same_01", "one"], ["all_same"], keepdims=0),
        node("Gather", ["past", "first"], ["first_piece"]),
        node("Gather", ["starts", "first_piece"], ["first_starts"]),
        node("Gather", ["past", "between"], ["between_piece"]),
        node("Gather", ["joins", "between_piece"], ["between_joins"]),
        node("Max", ["between_joins", "alone"], ["joined"]),
        node("Mul", ["all_same", "first_starts"], ["phrase_same"]),
        node("Mul", ["phrase_same", "joined"], ["repeats"]),
        node("Cast", ["repeats"], ["repeats_float"], to=TensorProto.FLOAT),
        node("Mul", ["repeats_float", "never_again"], ["penalties"]),
        node("Gather", ["past", "again"], ["piece_again"]),
        node("Reshape", ["piece_again", "column"], ["piece_again_column"]),
        node("Reshape", [logits, "flat"], ["flat_logits"]),
        node(
            "ScatterND",
            ["flat_logits", "piece_again_column", "penalties"],
            ["flat_once"],
            reduction="add",
        ),
        node("Reshape", ["flat_once", "logits_shape"], [result]),
    ]


def _tensors(values: dict[str, Any]) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]
