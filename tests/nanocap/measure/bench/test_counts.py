"""Multiply-adds and bytes of small graphs against numbers worked out by hand."""

from __future__ import annotations

import sys

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from nanocap.bundle import Bundle, default_bundle
from nanocap.errors import MissingExtraError
from nanocap.measure.bench.counts import Counts, count
from nanocap.measure.bench.photos import draw_photo
from nanocap.measure.bench.stages import POSITION, Setup

HEADER = '<ir_version: 9, opset_import: ["" : 20, "com.microsoft" : 1]>'


def counts(text: str, **weights: npt.NDArray[np.generic]) -> Counts:
    """Counts of a graph in ONNX's own text, whose inputs have fixed shapes."""
    model = onnx.parser.parse_model(f"{HEADER}\n{text}")
    for name, array in weights.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    feeds = {}
    for value in model.graph.input:
        kind = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        feeds[value.name] = np.zeros([axis.dim_value for axis in kind.shape.dim], dtype)
    return count(model.SerializeToString(), feeds)


def floats(*shape: int) -> npt.NDArray[np.float32]:
    return np.ones(shape, np.float32)


def test_convolution_with_groups_and_stride() -> None:
    found = counts(
        """g (float[1, 4, 8, 8] x) => (float[1, 6, 4, 4] y)
        { y = Conv <group = 2, strides = [2, 2], pads = [1, 1, 1, 1]> (x, w) }""",
        w=floats(6, 2, 3, 3),
    )
    assert found.float_multiply_adds == (6 * 4 * 4) * (2 * 3 * 3)
    assert found.int8_multiply_adds == 0
    assert found.weight_bytes == found.read_bytes == 4 * (6 * 2 * 3 * 3)
    assert found.activation_bytes == 4 * (4 * 8 * 8 + 6 * 4 * 4)


def test_depthwise_and_transposed_convolution() -> None:
    depthwise = counts(
        "g (float[1, 8, 5, 5] x) => (float[1, 8, 3, 3] y) { y = Conv <group = 8> (x, w) }",
        w=floats(8, 1, 3, 3),
    )
    assert depthwise.multiply_adds == 8 * 3 * 3 * 9
    transposed = counts(
        "g (float[1, 3, 4, 4] x) => (float[1, 5, 6, 6] y) { y = ConvTranspose (x, w) }",
        w=floats(3, 5, 3, 3),
    )
    assert transposed.multiply_adds == (3 * 4 * 4) * (5 * 3 * 3)


def test_gemm_either_way_round() -> None:
    plain = counts(
        "g (float[5, 7] a) => (float[5, 3] y) { y = Gemm <transB = 1> (a, b) }", b=floats(3, 7)
    )
    turned = counts(
        "g (float[7, 5] a) => (float[5, 3] y) { y = Gemm <transA = 1> (a, b) }", b=floats(7, 3)
    )
    assert plain.multiply_adds == turned.multiply_adds == 5 * 7 * 3


def test_batched_and_broadcast_products() -> None:
    batched = counts(
        "g (float[2, 3, 4, 5] a) => (float[2, 3, 4, 6] y) { y = MatMul (a, b) }", b=floats(5, 6)
    )
    broadcast = counts(
        """g (float[2, 1, 4, 5] a, float[3, 5, 6] b) => (float[2, 3, 4, 6] y)
        { y = MatMul (a, b) }"""
    )
    assert batched.multiply_adds == broadcast.multiply_adds == (2 * 3) * 4 * 5 * 6
    assert broadcast.weight_bytes == 0
    assert broadcast.activation_bytes == 4 * (2 * 4 * 5 + 3 * 5 * 6 + 2 * 3 * 4 * 6)


@pytest.mark.parametrize("equation", ["bij,bjk->bik", "...ij,...jk->...ik"])
def test_einsum(equation: str) -> None:
    found = counts(
        f"""g (float[2, 3, 4] a, float[2, 4, 5] b) => (float[2, 3, 5] y)
        {{ y = Einsum <equation = "{equation}"> (a, b) }}"""
    )
    assert found.multiply_adds == 2 * 3 * 4 * 5


SCALES = {"s": np.float32(0.1), "za": np.uint8(128), "zb": np.int8(0)}
BYTES_W = np.ones((8, 16), np.int8)


def test_a_product_between_quantizers_works_on_bytes() -> None:
    """The operators beside the product read and write the bytes; they cost nothing themselves."""
    found = counts(
        """g (uint8[4, 8] a) => (uint8[4, 16] y)
        {
            af = DequantizeLinear (a, s, za)
            wf = DequantizeLinear (w, s, zb)
            p = MatMul (af, wf)
            r = Relu (p)
            y = QuantizeLinear (r, s, za)
        }""",
        w=BYTES_W,
        **SCALES,
    )
    assert found.int8_multiply_adds == 4 * 8 * 16
    assert found.float_multiply_adds == 0
    assert found.read_bytes == 8 * 16
    assert found.weight_bytes == 8 * 16 + 4 + 1 + 1, "as stored: scale and zero points too"
    assert found.activation_bytes == 4 * 8 + 4 * 16


def test_quantizers_behind_a_reshape_are_seen() -> None:
    found = counts(
        """g (uint8[4, 8] a) => (float[2, 2, 16] y)
        {
            af = DequantizeLinear (a, s, za)
            shape = Constant <value_ints = [2, 2, 8]> ()
            view = Reshape (af, shape)
            wf = DequantizeLinear (w, s, zb)
            y = MatMul (view, wf)
        }""",
        w=BYTES_W,
        **SCALES,
    )
    assert found.int8_multiply_adds == 4 * 8 * 16
    assert found.activation_bytes == 4 * 8 + 4 * (4 * 16), "bytes in, floats out"


def test_quantized_weights_alone_do_not_make_a_product_of_bytes() -> None:
    found = counts(
        """g (float[4, 8] a) => (float[4, 16] y)
        { wf = DequantizeLinear (w, s, zb)
          y = MatMul (a, wf) }""",
        w=BYTES_W,
        **SCALES,
    )
    assert (found.int8_multiply_adds, found.float_multiply_adds) == (0, 4 * 8 * 16)
    assert found.read_bytes == 8 * 16
    assert found.activation_bytes == 4 * (4 * 8 + 4 * 16)


def test_a_quantizer_that_stands_alone_moves_bytes() -> None:
    found = counts(
        "g (float[10] x) => (uint8[10] y) { y = QuantizeLinear (x, s, za) }",
        s=SCALES["s"],
        za=SCALES["za"],
    )
    assert found.activation_bytes == 10 * 4 + 10


def test_integer_forms() -> None:
    product = counts(
        "g (uint8[4, 8] a) => (int32[4, 16] y) { y = MatMulInteger (a, w) }", w=BYTES_W
    )
    assert product.int8_multiply_adds == 4 * 8 * 16
    assert product.activation_bytes == 4 * 8 + 4 * (4 * 16)
    convolution = counts(
        """g (uint8[1, 4, 8, 8] x) => (uint8[1, 6, 6, 6] y)
        { y = QLinearConv <group = 2> (x, s, za, w, s, zb, s, za) }""",
        w=np.ones((6, 2, 3, 3), np.int8),
        **SCALES,
    )
    assert convolution.int8_multiply_adds == (6 * 6 * 6) * (2 * 3 * 3)
    linear = counts(
        """g (uint8[4, 8] a) => (uint8[4, 16] y)
        { y = QLinearMatMul (a, s, za, w, s, zb, s, za) }""",
        w=BYTES_W,
        **SCALES,
    )
    assert linear.int8_multiply_adds == 4 * 8 * 16


def test_four_bit_weights() -> None:
    """MatMulNBits is ONNX Runtime's own: what follows it must still be counted."""
    found = counts(
        """g (float[3, 64] a) => (float[3, 5] y)
        {
            h = com.microsoft.MatMulNBits <K = 64, N = 32, bits = 4, block_size = 32> (a, w, s)
            y = MatMul (h, v)
        }""",
        w=np.zeros((32, 2, 16), np.uint8),
        s=floats(64),
        v=floats(32, 5),
    )
    assert found.float_multiply_adds == 3 * 64 * 32 + 3 * 32 * 5
    assert found.read_bytes == 64 * 32 // 2 + 4 * 64 + 4 * 32 * 5


def test_shapes_that_follow_from_values_are_known() -> None:
    """The best of a number of rows that the graph computes, as a search of so many beams does."""
    text = """g (int64 beams, float[12] scores, float[12, 4] rows) => (float[kept, 5] y)
        {
            places = Range (zero, beams, one)
            number = Shape (places)
            twice = Add (number, number)
            values, best = TopK (scores, twice)
            kept = Gather (rows, best)
            y = MatMul (kept, v)
        }"""
    model = onnx.parser.parse_model(f"{HEADER}\n{text}")
    constants = {"zero": np.int64(0), "one": np.int64(1), "v": floats(4, 5)}
    for name, value in constants.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    for beams in (1, 3):
        feeds = {"beams": np.array(beams), "scores": floats(12), "rows": floats(12, 4)}
        found = count(model.SerializeToString(), feeds)
        assert found.multiply_adds == 2 * beams * 4 * 5


def test_a_lookup_reads_its_rows_only() -> None:
    found = counts(
        "g (int64[2] ids) => (float[2, 8] y) { y = Gather (table, ids) }", table=floats(100, 8)
    )
    assert found.weight_bytes == 100 * 8 * 4
    assert found.read_bytes == 2 * 8 * 4
    assert found.activation_bytes == 2 * 8 + 2 * 8 * 4


def test_shared_weights_are_read_once_and_fixed_work_is_done_at_load() -> None:
    found = counts(
        """g (float[2, 8] x) => (float[2, 8] y)
        {
            turned = Transpose <perm = [1, 0]> (w)
            h = MatMul (x, turned)
            y = MatMul (h, turned)
        }""",
        w=floats(8, 8),
    )
    assert found.multiply_adds == 2 * (2 * 8 * 8)
    assert found.read_bytes == 4 * 64
    assert found.activation_bytes == 4 * (4 * 16)


def test_free_axes_take_the_inputs_shapes() -> None:
    text = "g (float[rows, 4] a) => (float[rows, 5] y) { y = MatMul (a, v) }"
    model = onnx.parser.parse_model(f"{HEADER}\n{text}")
    model.graph.initializer.append(onnx.numpy_helper.from_array(floats(4, 5), "v"))
    for rows in (1, 7):
        assert (
            count(model.SerializeToString(), {"a": floats(rows, 4)}).multiply_adds == rows * 4 * 5
        )


# The shipped model, from the tables of nanocap/student/trunk.py and dimensions.py.
# repeats, kernel, stride, expand, channels
STAGES = (
    *((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80)),
    *((3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320)),
)
WIDTH, MLP, LAYERS, VISUAL, VOCABULARY, EVIDENCE = 256, 4, 3, 49, 4470, 8


def trunk_by_hand() -> int:
    side, inputs = 112, 32
    total = side**2 * 32 * 3 * 9  # the stem
    for repeats, kernel, stride, expand, channels in STAGES:
        for repeat in range(repeats):
            hidden = inputs * expand
            total += side**2 * inputs * hidden if expand > 1 else 0
            side //= stride if repeat == 0 else 1
            total += side**2 * hidden * (kernel**2 + channels)
            inputs = channels
    return total + side**2 * inputs * 1280  # the head


def encoder_by_hand() -> int:
    total = trunk_by_hand() + WIDTH * (14**2 * 112 + 7**2 * 1280)  # both maps onto the grid
    for tokens, keep in ((196, 98), (98, 49)):
        total += 4 * tokens * WIDTH**2 + 2 * tokens**2 * WIDTH  # attention
        total += (tokens // 2) ** 2 * WIDTH + keep * tokens * WIDTH  # merging
        total += 2 * keep * WIDTH**2 * MLP
    total += 1280 * 256 + 256 * 1000 + 2 * 256 * 420  # the concept head
    memory = VISUAL + EVIDENCE
    return (
        total + 2 * LAYERS * memory * WIDTH**2 + EVIDENCE * WIDTH**2
    )  # keys and values for the decoder


def step_by_hand() -> int:
    projections = (3 + 1 + 2 + 2 * MLP) * WIDTH**2
    attention = 2 * WIDTH * (POSITION + 1 + VISUAL + EVIDENCE)  # of the places there are so far
    copying = WIDTH**2 + EVIDENCE * WIDTH
    return LAYERS * (projections + attention) + VOCABULARY * WIDTH + copying


def test_the_shipped_model() -> None:
    assert trunk_by_hand() == pytest.approx(0.4e9, rel=0.05), "as EfficientNet-Lite0 says of itself"
    bundle = Bundle(default_bundle())
    (artifact,) = bundle.manifest.artifacts
    setup = Setup(bundle, artifact, 1, [draw_photo(320, 240)])

    (graph, feeds), *steps = (setup.graph(*stage) for stage in setup.stages)
    begin = count(graph, feeds)
    assert begin.multiply_adds == pytest.approx(encoder_by_hand(), rel=0.05)
    assert begin.int8_multiply_adds > trunk_by_hand() * 0.95
    model = onnx.load_model_from_string(graph)
    stored = sum(onnx.numpy_helper.to_array(i).nbytes for i in model.graph.initializer)
    assert begin.weight_bytes == stored
    assert 0.9 * stored < begin.read_bytes <= stored

    for beams, (graph, feeds) in zip((1, 3), steps, strict=True):
        step = count(graph, feeds)
        assert step.multiply_adds == pytest.approx(beams * step_by_hand(), rel=0.01)
        assert step.weight_bytes < len(graph)


def test_without_onnx_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"package onnx .* 'nanocap\[eval\]'"):
        count(b"", {})
