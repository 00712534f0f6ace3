"""int8 is int8 where it should be, float where it must be, and close to fp32."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from nanocap.convert.calibration import BINS, METHODS, collect_ranges
from nanocap.convert.errors import ConversionError
from nanocap.convert.exporters import Job, load_exporter
from nanocap.convert.quantize import Int8Options
from nanocap.convert.sessions import running_operators
from nanocap.student.reducers import REDUCERS


def file_of(made: Any, role: str) -> bytes:
    return made.files[made.artifact.files[role]]


def test_the_quantized_operators_really_run(tiny: Any) -> None:
    made = tiny.exported("int8")
    encoder = running_operators(file_of(made, "encoder"))
    assert encoder["QLinearConv"] == 49
    assert encoder["Conv"] == encoder["FusedConv"] == 0
    assert encoder["QLinearAdd"] == 9  # the residual sums of the trunk
    assert encoder["MatMulIntegerToFloat"] == 18  # two projections, 6 a block, two a decoder layer
    decoder = running_operators(file_of(made, "decoder"))
    assert decoder["QGemm"] == 13  # 6 a layer, and the logits
    assert decoder["Gemm"] == 0
    # bytes from the photo to the last map: only what leaves the trunk becomes float
    assert encoder["DequantizeLinear"] <= 2


def test_attention_and_the_reducers_stay_float(tiny: Any) -> None:
    for reducer in ("merge", "prune-row"):
        model = onnx.load_from_string(file_of(tiny.exported("int8", reducer), "encoder"))
        dequantized = {n.output[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
        constants = {t.name: t for t in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type in ("Softmax", "LayerNormalization", "ArgMax", "Greater", "Equal"):
                assert not dequantized.intersection(node.input)
            if node.op_type == "MatMul" and not dequantized.intersection(node.input):
                weight = constants.get(node.input[1])
                # a constant that stays float is a matrix of zeros and ones, never a weight
                assert weight is None or np.isin(numpy_helper.to_array(weight), (0, 1)).all()


def test_the_embedding_is_one_table_of_bytes(tiny: Any) -> None:
    model = onnx.load_from_string(file_of(tiny.exported("int8"), "decoder"))
    large = [t for t in model.graph.initializer if sorted(t.dims) == [32, 64]]
    tables = [t for t in large if t.dims[0] == 64 or t.dims[1] == 64]
    embedding = tiny.student().decoder.embedding.weight.detach().numpy()
    scaled = [t for t in tables if np.abs(numpy_helper.to_array(t)).max() == 127]
    close = [
        t for t in scaled
        if list(t.dims) == [64, 32]
        and np.corrcoef(numpy_helper.to_array(t).ravel(), embedding.ravel())[0, 1] > 0.9
    ]  # fmt: skip
    assert len(close) == 1
    assert close[0].data_type == TensorProto.INT8
    users = Counter(n.op_type for n in model.graph.node if close[0].name in n.input)
    assert users == {"Gather": 1, "DequantizeLinear": 1}
    assert not any(t.data_type == TensorProto.FLOAT for t in large)


def test_the_photos_bytes_go_in_unrounded(tiny: Any) -> None:
    model = onnx.load_from_string(file_of(tiny.exported("int8"), "encoder"))
    kinds = [node.op_type for node in model.graph.node if node.op_type != "Shape"][:2]
    assert kinds == ["Transpose", "DequantizeLinear"] or "DequantizeLinear" in kinds
    (transpose,) = (
        n for n in model.graph.node if n.op_type == "Transpose" and n.input[0] == "pixels"
    )
    (dequantize,) = (n for n in model.graph.node if transpose.output[0] in n.input)
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    assert constants[dequantize.input[1]] == np.float32(1 / 128)
    assert constants[dequantize.input[2]] == 127


def test_int8_is_close_to_fp32(tiny: Any) -> None:
    made = tiny.exported("int8")
    parity = made.artifact.measured["parity"]
    assert parity["against"] == "fp32"
    assert parity["tokens_equal"] > 0.8
    logits = tiny.engine(made)
    fp32, int8 = (
        tiny.engine(tiny.exported("fp32")).encode(tiny.pixels(4)),
        logits.encode(tiny.pixels(4)),
    )
    error = np.linalg.norm(fp32[0] - int8[0]) / np.linalg.norm(fp32[0])
    assert error < 0.35  # a random student; a merge decided otherwise is most of it


def test_int8_is_a_quarter_of_fp32(tiny: Any) -> None:
    # a real student's weights outweigh its nodes; the tiny one's trunk is the real trunk
    int8, fp32 = (len(file_of(tiny.exported(p), "encoder")) for p in ("int8", "fp32"))
    assert int8 < 0.3 * fp32


def test_int8_gives_a_photo_the_same_alone_and_in_a_batch(tiny: Any) -> None:
    engine = tiny.engine(tiny.exported("int8"))
    pictures = tiny.pixels(5)
    keys, _ = engine.encode(pictures)
    for index in range(5):
        alone, _ = engine.encode(pictures[index : index + 1])
        assert np.abs(alone[:, 0] - keys[:, index]).max() < 1e-3


def test_int8_without_photos_is_refused(tiny: Any) -> None:
    job = Job(tiny.probe(tiny.pixels(1)), tiny.pixels(0))
    with pytest.raises(ConversionError, match="int8 is calibrated on photos; name some"):
        load_exporter("onnx").export(tiny.student(), ["int8"], job)


@pytest.mark.slow
@pytest.mark.parametrize("reducer", sorted(REDUCERS))
@pytest.mark.parametrize("reduce_range", [False, True])
def test_every_reducer_in_int8(tiny: Any, reducer: str, reduce_range: bool) -> None:
    options = Int8Options("percentile", "mse", reduce_range)
    job = Job(tiny.probe(tiny.pixels(4)), tiny.pixels(8, seed=5), options)
    (made,) = load_exporter("onnx").export(tiny.student(reducer), ["int8"], job)
    assert made.artifact.measured["parity"]["tokens_equal"] > 0.5


def doubling() -> onnx.ModelProto:
    text = """
    <ir_version: 9, opset_import: ["" : 18]>
    graph (float[n] x) => (float[n] z) { y = Add (x, x)  z = Identity (y) }
    """
    return onnx.parser.parse_model(text)


def with_outlier() -> np.ndarray:
    values = np.random.default_rng(0).normal(0, 1, 100_000).astype(np.float32)
    values[0] = 50
    return values


def test_ranges_are_those_of_the_values_seen() -> None:
    feeds = [{"x": np.array([-1.0, 2.0], np.float32)}, {"x": np.array([3.0], np.float32)}]
    ranges = collect_ranges(doubling(), ["x", "y"], lambda: iter(feeds), "minmax")
    assert ranges == {"x": (-1.0, 3.0), "y": (-2.0, 6.0)}


def test_an_outlier_is_clipped_by_all_but_minmax() -> None:
    feeds = [{"x": with_outlier()}]
    highest = {
        method: collect_ranges(doubling(), ["x"], lambda: iter(feeds), method)["x"][1]
        for method in METHODS
    }
    assert highest["minmax"] == 50
    assert 3 < highest["percentile"] < 5
    assert 3 < highest["mse"] < 12


def test_mse_has_the_least_rounding_error() -> None:
    values = with_outlier()
    errors = {}
    for name, method in METHODS.items():
        low, high = float(values.min()), float(values.max())
        low, high = method(np.histogram(values, BINS, (low, high))[0], low, high)
        step = (high - low) / 255
        rounded = np.clip(np.rint((values - low) / step), 0, 255) * step + low
        errors[name] = float(((rounded - values) ** 2).mean())
    assert errors["mse"] < errors["minmax"] / 4
    assert errors["mse"] <= errors["percentile"]


def test_calibration_names_what_is_wrong() -> None:
    with pytest.raises(
        ConversionError, match="unknown calibration method 'best'; known are minmax"
    ):
        collect_ranges(doubling(), ["x"], lambda: iter([]), "best")
    with pytest.raises(ConversionError, match="calibration saw no photos"):
        collect_ranges(doubling(), ["x"], lambda: iter([]), "minmax")
