"""int8 products that no x86 processor clips, whatever it has for adding them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from onnx import numpy_helper

from nanocap.bundle import Bundle, default_bundle
from nanocap.convert.graphs.passes import constants
from nanocap.convert.quantization.saturation import weight_steps

matrices = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, max_side=9),
    elements=st.floats(-4, 4, width=32),
)


def clipped_product(pixels_K: np.ndarray, weights_NK: np.ndarray) -> np.ndarray:
    """As `vpmaddubsw` and `vpmaddwd` do it: pairs in 16 bits with their ends, then 32."""
    products = pixels_K.astype(np.int64) * weights_NK
    if products.shape[1] % 2:
        products = np.pad(products, ((0, 0), (0, 1)))
    pairs = products[:, ::2] + products[:, 1::2]
    return np.clip(pairs, -(2**15), 2**15 - 1).sum(1)


@settings(max_examples=200, deadline=None)
@given(matrices, st.integers(0, 99))
def test_no_bytes_are_too_much(matrix: np.ndarray, seed: int) -> None:
    step = weight_steps(matrix)
    rounded = np.rint(matrix / step[:, None]).astype(np.int64)
    assert np.abs(rounded).max() <= 127
    random = np.random.default_rng(seed).integers(0, 256, matrix.shape[1])
    for pixels in (random, np.full(matrix.shape[1], 255)):
        assert (clipped_product(pixels, rounded) == rounded @ pixels).all()


@settings(max_examples=100, deadline=None)
@given(matrices)
def test_a_step_is_at_most_twice_as_coarse(matrix: np.ndarray) -> None:
    finest = np.abs(matrix).max(1) / 127
    step = weight_steps(matrix)
    assert (step >= finest * 0.9999).all()
    assert (step <= np.maximum(finest * 2.0001, 1e-12)).all()


def test_only_large_neighbours_of_one_sign_make_it_coarser() -> None:
    matrix = np.array([[1.0, -1.0, 0.2, 0.3], [1.0, 0.5, 0, 0], [0, 1.0, 1.0, 0]], np.float32)
    assert np.allclose(weight_steps(matrix) * 127, [1.0, 1.5, 1.0])


WEIGHT = {"QLinearConv": 3, "QGemm": 3, "MatMulIntegerToFloat": 1, "MatMulInteger": 1}


def unsafe(model: onnx.ModelProto) -> list[str]:
    """Layers whose sums could be clipped."""
    held = constants(model)
    found, checked = [], 0
    for node in model.graph.node:
        if node.op_type not in WEIGHT:
            continue
        weights = held[node.input[WEIGHT[node.op_type]]].astype(int)
        if node.op_type == "QLinearConv":
            if weights.shape[1] == 1 and weights.shape[0] > 1:  # depthwise
                continue
            weights = np.moveaxis(weights, 1, -1).reshape(len(weights), -1)
        elif not any(each.name == "transB" and each.i for each in node.attribute):
            weights = weights.T
        checked += 1
        pixels = np.full(weights.shape[1], 255)
        if (clipped_product(pixels, weights) != weights @ pixels).any():
            found.append(node.name)
    assert checked >= 13  # that many layers the tiny decoder has
    return found


@pytest.mark.parametrize("role", ["begin", "step"])
def test_no_layer_of_a_bundle_can_be_clipped(tiny: Any, role: str) -> None:
    assert unsafe(tiny.graph("int8", role)) == []


@pytest.mark.parametrize("role", ["begin", "step"])
def test_no_layer_of_the_shipped_model_can_be_clipped(role: str) -> None:
    bundle = Bundle(default_bundle())
    graph = bundle.read(bundle.manifest.artifacts[0].files[role])
    assert unsafe(onnx.load_from_string(graph)) == []


def test_weights_that_can_be_clipped_are_seen(tiny: Any) -> None:
    model = tiny.graph("int8", "step")
    (node, *_) = (node for node in model.graph.node if node.op_type == "QGemm")
    (weight,) = (t for t in model.graph.initializer if t.name == node.input[WEIGHT["QGemm"]])
    weight.CopyFrom(numpy_helper.from_array(np.full(weight.dims, 127, np.int8), weight.name))
    assert unsafe(model) == [node.name]
