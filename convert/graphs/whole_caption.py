"""One graph from the pixels of a photo to the ids of its caption: `begin`, and a loop over `step`.

Resize and loop are inside, so that any language that has ONNX Runtime captions with one call and a
table of pieces (which the file carries as metadata).
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from nanocap.bundle import Bundle
from nanocap.bundle.manifest import Artifact, Manifest, StateTensor
from nanocap.convert.errors import ConversionError
from nanocap.runtime.engines.onnx import NEW

MODES: dict[str, dict[str, Any]] = {
    "bilinear": {"mode": "linear"},
    "bicubic": {"mode": "cubic", "cubic_coeff_a": -0.5},  # Pillow's
}
BEGIN, STEP = "begin/", "step/"  # in front of the names of either graph
TYPES = {
    "float32": TensorProto.FLOAT,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
    "bool": TensorProto.BOOL,
}


def whole_caption(bundle: Bundle, artifact: Artifact, beams: int | None = None) -> onnx.ModelProto:
    """The graph `image` uint8 [height, width, 3] to `ids` int64 [pieces], the end left out.

    It searches with the bundle's defaults. The pieces are in the metadata as `pieces`, a JSON list;
    text is their join, with "\u2581" for a space.

    Args:
        beams: other than the bundle's.
    Raises:
        ConversionError: the artifact is of another backend, or its image rule has no operator.
        BundleError: a file is missing or altered.
    """
    manifest = bundle.manifest
    if artifact.backend != "onnx":
        raise ConversionError(f"{artifact.name}: its backend is {artifact.backend}, not onnx")
    if (manifest.image.fit, manifest.image.resample in MODES) != ("squash", True):
        raise ConversionError(f"no operator resizes as the image rule asks: {manifest.image}")
    moving = [tensor for tensor in artifact.state if not tensor.constant]
    begin, step = (_graph(bundle.read(artifact.files[role]), role) for role in ("begin", "step"))
    constant = {f"{STEP}{t.name}": f"{BEGIN}{t.name}" for t in artifact.state if t.constant}
    for node in step.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = constant.get(name, name)
    resize, constants = _resize(manifest)
    loop = helper.make_node(
        "Loop",
        ["", "", *(BEGIN + tensor.name for tensor in moving)],
        [f"last_{tensor.name}" for tensor in moving],
        name="loop",
        body=_body(step.graph, moving),
    )
    cut = [
        helper.make_node("Gather", ["last_answer_ids", "best"], ["of_best"], axis=0),
        helper.make_node("Gather", ["of_best", "best"], ["padded"], axis=0),
        helper.make_node("Equal", ["padded", "end"], ["is_end"]),
        helper.make_node("Equal", ["padded", "pad"], ["is_pad"]),
        helper.make_node("Or", ["is_end", "is_pad"], ["is_none"]),
        helper.make_node("Not", ["is_none"], ["is_piece"]),
        helper.make_node("Compress", ["padded", "is_piece"], ["ids"], axis=0),
    ]
    defaults, controls = manifest.search, manifest.controls
    constants |= {
        f"{BEGIN}beams": np.array(beams or defaults.beams),
        f"{BEGIN}quality": np.array([controls.quality[defaults.quality]]),
        f"{BEGIN}length": np.array([controls.length[defaults.length]]),
        f"{BEGIN}length_penalty": np.array([defaults.length_penalty], np.float32),
        "best": np.array(0),
        "end": np.array(manifest.tokens.end),
        "pad": np.array(manifest.tokens.pad),
    }
    graph = helper.make_graph(
        [*resize, *begin.graph.node, loop, *cut],
        "caption",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["height", "width", 3])],
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["pieces"])],
        [*begin.graph.initializer, *_tensors(constants)],
    )
    domains = {entry.domain: entry for entry in (*begin.opset_import, *step.opset_import)}
    model = helper.make_model(
        graph, opset_imports=list(domains.values()), ir_version=begin.ir_version
    )
    model.producer_name = "nanocap"
    helper.set_model_props(model, {"pieces": json.dumps(manifest.vocabulary.pieces)})
    onnx.checker.check_model(model)
    return model


def _graph(data: bytes, role: str) -> onnx.ModelProto:
    return compose.add_prefix(onnx.load_from_string(data), f"{role}/")


def _body(step: onnx.GraphProto, moving: list[StateTensor]) -> onnx.GraphProto:
    """`step` as a loop's body, which goes on while the photo does. What is constant is outside."""
    info = helper.make_tensor_value_info
    scalar = helper.make_node("Reshape", [f"{STEP}{NEW}going", "one_photo"], ["goes_on"])
    given, made = (
        [info(f"{STEP}{new}{t.name}", TYPES[t.type], t.shape) for t in moving] for new in ("", NEW)
    )
    return helper.make_graph(
        [*step.node, scalar],
        "step",
        [info("turn", TensorProto.INT64, []), info("going_on", TensorProto.BOOL, []), *given],
        [info("goes_on", TensorProto.BOOL, []), *made],
        [*step.initializer, *_tensors({"one_photo": np.array([], np.int64)})],
    )


def _resize(manifest: Manifest) -> tuple[list[onnx.NodeProto], dict[str, Any]]:
    """Bytes of any size to the pixels of `begin`, as Pillow resizes them.

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
        node("Reshape", ["photo", "batch_shape"], [f"{BEGIN}pixels"]),
    ]
    constants = {"square": [1, 3, size, size], "own_shape": [size, size, 3], "first_axis": [0]}
    constants["batch_shape"] = [-1, size, size, 3]
    return nodes, {name: np.array(value) for name, value in constants.items()}


def _tensors(values: dict[str, Any]) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]
