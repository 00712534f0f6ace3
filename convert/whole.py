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
from nanocap.convert.errors import ConversionError
from nanocap.manifest import Artifact, Manifest, never_generated
from nanocap.vocabulary import Vocabulary

MODES: dict[str, dict[str, Any]] = {
    "bilinear": {"mode": "linear"},
    "bicubic": {"mode": "cubic", "cubic_coeff_a": -0.5},  # Pillow's
}
NEVER = -1e30
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
        ["steps", "", "quality", "no_keys", "no_values"],
        ["last", "last_keys", "last_values", "chosen"],
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
        node("ArgMax", ["allowed_here"], ["likeliest"], axis=2, keepdims=0),
        node("Equal", ["step", "zero_step"], ["is_control"]),
        node("Where", ["is_control", "length", "likeliest"], ["next"]),
        node("Reshape", ["next", "scalar"], ["piece"]),
        node("Equal", ["piece", "end_id"], ["is_end"]),
        node("Not", ["is_end"], ["goes_on"]),
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
        ],
        [
            info("goes_on", TensorProto.BOOL, []),
            info("next", TensorProto.INT64, [1, 1]),
            info("new_keys", TensorProto.FLOAT, cache),
            info("new_values", TensorProto.FLOAT, cache),
            info("piece", TensorProto.INT64, []),
        ],
        [*decoder.initializer, *_tensors(constants)],
    )


def _tensors(values: dict[str, Any]) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]
