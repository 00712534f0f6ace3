"""fp16, dynamic int8 and int4: what they promise, number by number."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, numpy_helper

from nanocap.convert.errors import ConversionError
from nanocap.convert.graphs.passes import constants
from nanocap.convert.graphs.sessions import open_session, running_operators
from nanocap.convert.probe import forced
from nanocap.convert.quantization.fp16 import emulate, halve
from nanocap.convert.quantization.int4 import BLOCK, SHRINKS, pack, quantize_blockwise
from nanocap.convert.quantization.int8_dynamic import quantize_dynamically, round_columns
from nanocap.convert.quantization.saturation import weight_steps
from nanocap.runtime.engines.onnx import OnnxEngine


def unpack(packed: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The matrix [N, K] that `MatMulNBits` multiplies with, written from its documentation."""
    matrix = np.empty((len(packed), packed.shape[1] * BLOCK), np.float32)
    for row in range(len(packed)):
        for column in range(matrix.shape[1]):
            block, place = divmod(column, BLOCK)
            byte = int(packed[row, block, place // 2])
            step = byte >> 4 if place % 2 else byte & 15
            matrix[row, column] = (step - 8) * np.float32(scale[row, block])
    return matrix


matrices = arrays(
    np.float32, (3, 2 * BLOCK), elements=st.floats(-4, 4, width=16, allow_subnormal=False)
)


@settings(max_examples=25, deadline=None)
@given(matrices)
def test_a_packed_weight_is_within_a_step_of_itself(matrix: np.ndarray) -> None:
    packed, scale = pack(matrix)
    assert packed.dtype == np.uint8
    assert packed.shape == (3, 2, BLOCK // 2)
    error = np.abs(unpack(packed, scale) - matrix).reshape(3, 2, BLOCK)
    largest = np.abs(matrix).reshape(3, 2, BLOCK).max(2, keepdims=True)
    # half a step inside; a scale that is tried may clip the largest by a quarter of it
    assert (error <= np.maximum(largest * (1 - SHRINKS[0]), 1e-6) + 1e-3).all()
    assert ((matrix == 0) | (largest[..., 0].repeat(BLOCK, 1) > 0)).all()


def test_the_chosen_scales_beat_the_plain_ones() -> None:
    matrix = np.random.default_rng(0).standard_normal((64, 4 * BLOCK)).astype(np.float32)
    packed, scale = pack(matrix)
    ours = ((unpack(packed, scale) - matrix) ** 2).mean()
    blocks = matrix.reshape(-1, BLOCK)
    step = np.abs(blocks).max(1, keepdims=True) / 7
    plain = ((np.rint(blocks / step) * step - blocks) ** 2).mean()
    assert ours < 0.8 * plain


@pytest.mark.slow  # a conversion of its own
def test_int4_computes_with_the_unpacked_weights(tiny: Any) -> None:
    """Embedding, logits and linear layers: the student with rounded weights, to the last digits."""
    model = tiny.graph("int4", "step")
    values, products = constants(model), {}
    for node in model.graph.node:
        if node.op_type == "MatMulNBits":
            name = node.input[1].removesuffix("_packed")
            products[name] = unpack(values[f"{name}_packed"], values[f"{name}_scale16"])
            (level,) = (a for a in node.attribute if a.name == "accuracy_level")
            node.attribute.remove(level)  # float products, as other processors have
    assert len(products) == 13  # 6 a layer, and the logits
    rounded = tiny.graph("fp32", "step")
    for tensor in rounded.graph.initializer:
        if tensor.name in products:
            tensor.CopyFrom(numpy_helper.from_array(products.pop(tensor.name), tensor.name))
    assert not products  # every one has its matrix in the fp32 graph, in the same orientation
    begin = open_session(tiny.graph("fp32", "begin").SerializeToString())
    packed, plain = (
        OnnxEngine(begin, open_session(m.SerializeToString())) for m in (model, rounded)
    )
    state = tiny.begin(plain, tiny.pixels(2), beams=3)
    tokens = np.array([[3, 70, 11], [0, 71, 1]])
    ours, theirs = (forced(engine, state, tokens) for engine in (packed, plain))
    for name in ("logits", "keys", "values"):
        np.testing.assert_allclose(ours[name], theirs[name], atol=2e-4)


def test_int4_holds_no_weights_twice_or_wide(tiny: Any) -> None:
    model = tiny.part("int4", "decoder")
    wide = [t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT]
    assert max(np.prod(t.dims) for t in wide) == 12 * 32  # positions; no matrix, no table
    tables = [t for t in model.graph.initializer if t.dims and t.dims[0] == 72]
    assert sorted(t.data_type for t in tables) == [TensorProto.UINT8, TensorProto.FLOAT16]

    def stored(precision: str) -> int:
        tensors = tiny.part(precision, "decoder").graph.initializer
        return sum(len(t.raw_data) for t in tensors if len(t.dims) > 1 and 12 not in t.dims)

    assert stored("int4") <= 0.6 * stored("int8")


def test_int4_refuses_a_width_that_has_no_blocks(tiny: Any) -> None:
    with pytest.raises(ConversionError, match="blocks of 32, and one has 48"):
        pack(np.zeros((4, 48), np.float32))


def test_dynamic_int8_multiplies_in_integers(tiny: Any) -> None:
    for role, products in (("begin", 18), ("step", 13)):
        made = tiny.exported("int8-dynamic")
        running = running_operators(made.files[made.artifact.files[role]])
        assert running["MatMulInteger"] + running["MatMulIntegerToFloat"] == products
        assert running["DynamicQuantizeLinear"] == running["DynamicQuantizeMatMul"] == 0
        assert running["Gemm"] == 0
    encoder = tiny.part("int8-dynamic", "encoder")
    filters = [n.input[1] for n in encoder.graph.node if n.op_type == "Conv"]
    weights = constants(encoder)
    assert all(weights[name].size < 1024 for name in filters if name in weights)
    assert sum(f"{name}_int8" in weights for name in filters) > 30


def test_a_row_of_dynamic_int8_does_not_see_its_neighbours() -> None:
    text = """
    <ir_version: 9, opset_import: ["" : 20]>
    graph (float[n, 8] x) => (float[n, 5] y) { y = MatMul (x, w) }
    """
    random = np.random.default_rng(1)
    weight = random.standard_normal((8, 5)).astype(np.float32)
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    session = open_session(quantize_dynamically(model).SerializeToString())
    rows = random.standard_normal((3, 8)).astype(np.float32)
    rows[1] *= 1000
    rows[2] = 0
    (together,) = session.run(None, {"x": rows})
    assert np.array_equal(together[:1], session.run(None, {"x": rows[:1]})[0])
    assert (together[2] == 0).all()
    exact = rows @ weight
    assert (np.abs(together - exact) <= 0.03 * np.abs(rows).max(1, keepdims=True)).all()


@settings(max_examples=25, deadline=None)
@given(matrices)
def test_rounded_columns_are_within_half_a_step(matrix: np.ndarray) -> None:
    step = weight_steps(matrix.T)
    assert (np.abs(round_columns(matrix, step) * step - matrix) <= step * 0.501).all()


def test_fp16_keeps_the_types_that_the_runtime_knows(tiny: Any) -> None:
    for role in ("begin", "step"):
        half, exact = tiny.graph("fp16", role), tiny.graph("fp32", role)
        assert [*half.graph.input, *half.graph.output] == [*exact.graph.input, *exact.graph.output]
        kinds = {t.data_type for t in half.graph.initializer if np.prod(t.dims) > 1000}
        assert kinds == {TensorProto.FLOAT16}


def test_fp16_is_measured_as_other_processors_compute(tiny: Any) -> None:
    measured = tiny.exported("fp16").artifact.measured
    assert 0 < measured["parity_emulated"]["max_logit_difference"] < 1
    assert measured["parity_emulated"]["tokens_equal"] > 0.9


def squares() -> onnx.ModelProto:
    text = """
    <ir_version: 9, opset_import: ["" : 20]>
    graph (float[n] x) => (float[n] y) {
        doubled = Add (x, x)
        square = Mul (doubled, doubled)
        root = Sqrt (square)
        y = Neg (root)
    }
    """
    model = onnx.parser.parse_model(text)
    for index, node in enumerate(model.graph.node):
        node.name = f"node_{index}"
    return model


def test_what_overflows_in_fp16_stays_fp32() -> None:
    x = np.array([200.0, -1.5], np.float32)
    small, large = (lambda: iter([{"x": x / 100}])), (lambda: iter([{"x": x}]))
    careless = open_session(emulate(halve(squares(), small)).SerializeToString())
    careful = halve(squares(), large)
    assert np.isinf(careless.run(None, {"x": x})[0][0])  # 160,000 is above fp16's largest
    (found,) = open_session(emulate(careful).SerializeToString()).run(None, {"x": x})
    np.testing.assert_allclose(found, [-400, -3])
    inside = onnx.shape_inference.infer_shapes(careful).graph.value_info
    kinds = {value.name: value.type.tensor_type.elem_type for value in inside}
    assert kinds["square"] == TensorProto.FLOAT
    assert TensorProto.FLOAT16 in kinds.values()


def test_emulation_rounds_every_value(tiny: Any) -> None:
    """Against torch's own half precision on the operators that it has on a CPU."""
    linear = torch.nn.Linear(16, 8)
    text = """
    <ir_version: 9, opset_import: ["" : 20]>
    graph (float[n, 16] x) => (float[n, 8] y) { z = Gemm <transB = 1> (x, w, b)  y = Add (z, z) }
    """
    model = onnx.parser.parse_model(text)
    for index, node in enumerate(model.graph.node):
        node.name = f"node_{index}"
    for name, tensor in (("w", linear.weight), ("b", linear.bias)):
        model.graph.initializer.append(numpy_helper.from_array(tensor.detach().numpy(), name))
    x = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    half = emulate(halve(model, lambda: iter([{"x": x.numpy()}])))
    (found,) = open_session(half.SerializeToString()).run(None, {"x": x.numpy()})
    assert np.array_equal(found, found.astype(np.float16))
    with torch.no_grad():
        expected = (2 * linear.half()(x.half())).float().numpy()
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-3)


def test_int8_weights_are_bytes_that_become_floats(tiny: Any) -> None:
    """Of the same graph; a session multiplies them out once, where it is told to."""
    assert tiny.exported("int8-weights").artifact.session == {"session.disable_quant_qdq": "1"}
    for role, layers in (("encoder", 49 + 18), ("decoder", 13)):  # convolutions, linear layers
        model, exact = tiny.part("int8-weights", role), tiny.part("fp32", role)
        ours, theirs = constants(model), constants(exact)
        unpacking = [n for n in model.graph.node if n.op_type == "DequantizeLinear"]
        assert len(model.graph.node) - len(unpacking) == len(exact.graph.node)
        assert 0.6 * layers < len(unpacking) <= layers  # small ones stay as they are
        for node in unpacking:
            steps, scale = (ours[name] for name in node.input)
            assert steps.dtype == np.int8
            weights = theirs[node.input[0].removesuffix("_int8")]
            (axis,) = (attribute.i for attribute in node.attribute)
            scale = np.expand_dims(scale, [i for i in range(weights.ndim) if i != axis])
            assert (np.abs(steps * scale - weights) <= scale * 0.501).all()
        floats = (t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT)
        assert max(np.prod(t.dims) for t in floats if len(t.dims) > 1) < 1024  # but biases


@pytest.mark.parametrize("precision", ["fp16", "int8-weights", "int8-dynamic", "int4"])
def test_each_is_close_to_fp32(tiny: Any, precision: str) -> None:
    made = tiny.exported(precision)
    assert made.artifact.measured["parity"]["against"] == "fp32"
    assert made.artifact.measured["parity"]["tokens_equal"] > {"int4": 0.6}.get(precision, 0.85)
    engine, pictures = tiny.engine(made), tiny.pixels(4)
    ours, theirs = (tiny.begin(each, pictures)["cross_keys"] for each in (engine, tiny.eager()))
    error = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
    assert error < 0.35  # of int4, whose encoder is that of int8


def test_making_one_leaves_the_fp32_graph_alone(tiny: Any) -> None:
    model = tiny.part("fp32", "decoder")
    before = model.SerializeToString()
    quantize_blockwise(model)
    quantize_dynamically(model)
    assert model.SerializeToString() == before
