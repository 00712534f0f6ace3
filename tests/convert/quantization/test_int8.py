"""int8 is int8 where it should be, float where it must be, and close to fp32."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from nanocap.convert.errors import ConversionError
from nanocap.convert.exporters import Job, load_exporter
from nanocap.convert.graphs.sessions import fused, running_operators
from nanocap.convert.quantization.calibration import (
    choose_ranges,
    collect_extremes,
    collect_histograms,
)
from nanocap.convert.quantization.int8 import Choice, Int8Options, linear_nodes
from nanocap.convert.quantization.ranges import METHODS
from nanocap.convert.quantization.saturation import weight_steps
from nanocap.student.reducers import REDUCERS


def file_of(made: Any, role: str) -> bytes:
    return made.files[made.artifact.files[role]]


def test_the_quantized_operators_really_run(tiny: Any) -> None:
    made = tiny.exported("int8")
    encoder = running_operators(file_of(made, "begin"))
    assert encoder["QLinearConv"] == 49
    assert encoder["Conv"] == encoder["FusedConv"] == 0
    assert encoder["QLinearAdd"] == 9  # the residual sums of the trunk
    assert encoder["MatMulIntegerToFloat"] == 18  # two projections, 6 a block, two a decoder layer
    decoder = running_operators(file_of(made, "step"))
    assert decoder["QGemm"] == 13  # 6 a layer, and the logits
    assert decoder["Gemm"] == 0
    # bytes from the photo to the last map: only what leaves the trunk becomes float
    assert encoder["DequantizeLinear"] <= 2


@pytest.mark.parametrize("role", ["begin", "step"])
def test_no_start_has_to_rewrite_the_graph(role: str, tiny: Any) -> None:
    """What every session would do first is done: no pair is left around an integer operator."""
    model = tiny.graph("int8", role)
    kinds, after = (Counter(n.op_type for n in g.graph.node) for g in (model, fused(model)))
    del kinds["Identity"], after["Identity"]  # an input that is an output too; they cost nothing
    assert kinds == after
    assert not kinds["Conv"] + kinds["Gemm"]
    assert {entry.domain for entry in model.opset_import} == {"", "com.microsoft"}


@pytest.mark.slow  # a conversion of its own
def test_pairs_are_left_where_they_are_asked_for(tiny: Any) -> None:
    """For execution providers that look for them; the numbers are the same."""
    probe, calibration = tiny.probe(tiny.pixels(4)), tiny.pixels(8, seed=5)
    job = Job(probe, tiny.search(), calibration, tiny.minmax, qdq=True)
    (pairs,) = load_exporter("onnx").export(tiny.student(), ["int8"], job)
    kinds = Counter(n.op_type for n in onnx.load_from_string(file_of(pairs, "begin")).graph.node)
    assert kinds["Conv"] == 49
    assert kinds["QLinearConv"] == 0
    pixels = tiny.pixels(3)
    states = []
    for made in (pairs, tiny.exported("int8")):
        engine = tiny.engine(made)
        states.append(engine.step(tiny.begin(engine, pixels, beams=3), logits=True))
    for name, value in states[0].items():
        np.testing.assert_array_equal(value, states[1][name])


@pytest.mark.parametrize("reducer", ["merge", "prune-row"])
def test_only_weights_are_quantized(tiny: Any, reducer: str) -> None:
    """Not attention, and not what the reducers count with."""
    model = tiny.encoder(reducer)
    chosen = linear_nodes(model)
    assert len(chosen) == 18  # two projections, 6 a block, two a decoder layer
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    assert {constants[node.input[1]].shape[1] for node in chosen} == {32, 64}
    others = [n for n in model.graph.node if n.op_type == "MatMul" and n not in chosen]
    assert len(others) >= 8  # two of attention, two or more of the reducer, in each block
    for node in others:
        assert np.isin(constants.get(node.input[1], 0), (0, 1)).all()


def test_nothing_rounded_reaches_a_norm_or_a_rank(tiny: Any) -> None:
    model = tiny.part("int8", "encoder")
    dequantized = {n.output[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    for node in model.graph.node:
        if node.op_type in (
            "Softmax",
            "LayerNormalization",
            "ArgMax",
            "Greater",
            "Equal",
            "BiasGelu",
        ):
            assert not dequantized.intersection(node.input)


def test_the_embedding_is_one_table_of_bytes(tiny: Any) -> None:
    model = tiny.graph("int8", "step")
    (table,) = (t for t in model.graph.initializer if sorted(t.dims) == [32, 72])
    assert table.data_type == TensorProto.INT8
    users = Counter(node.op_type for node in model.graph.node if table.name in node.input)
    assert users == {"Gather": 1, "QGemm": 1}
    embedding = tiny.student().decoder.embedding.weight.detach().numpy()
    scale = weight_steps(embedding)[:, None]
    assert np.abs(numpy_helper.to_array(table) * scale - embedding).max() <= scale.max()


def test_the_photos_bytes_go_in_unrounded(tiny: Any) -> None:
    model = tiny.part("int8", "encoder")
    (convolution,) = (n for n in model.graph.node if "pixels" in n.input and n.op_type != "Shape")
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    assert convolution.op_type == "QLinearConv"
    assert constants[convolution.input[1]] == np.float32(1 / 128)
    assert constants[convolution.input[2]] == 127


def test_int8_is_close_to_fp32(tiny: Any) -> None:
    made = tiny.exported("int8")
    parity = made.artifact.measured["parity"]
    assert parity["against"] == "fp32"
    assert parity["tokens_equal"] > 0.8
    pictures = tiny.pixels(4)
    fp32, int8 = (
        tiny.begin(tiny.engine(each), pictures)["cross_keys"]
        for each in (tiny.exported("fp32"), made)
    )
    error = np.linalg.norm(fp32 - int8) / np.linalg.norm(fp32)
    assert error < 0.35  # a random student; a merge decided otherwise is most of it


def test_int8_is_a_quarter_of_fp32(tiny: Any) -> None:
    # a real student's weights outweigh its nodes; the tiny one's trunk is the real trunk
    int8, fp32 = (len(file_of(tiny.exported(p), "begin")) for p in ("int8", "fp32"))
    assert int8 < 0.3 * fp32


def test_int8_gives_a_photo_the_same_alone_and_in_a_batch(tiny: Any) -> None:
    engine = tiny.engine(tiny.exported("int8"))
    pictures = tiny.pixels(5)
    keys = tiny.begin(engine, pictures)["cross_keys"]
    for index in range(5):
        alone = tiny.begin(engine, pictures[index : index + 1])["cross_keys"]
        assert np.abs(alone[:, 0] - keys[:, index]).max() < 1e-3


def test_int8_without_photos_is_refused(tiny: Any) -> None:
    job = Job(tiny.probe(tiny.pixels(1)), tiny.search(), tiny.pixels(0))
    with pytest.raises(ConversionError, match="int8 is calibrated on photos; name some"):
        load_exporter("onnx").export(tiny.student(), ["int8"], job)


@pytest.mark.slow
@pytest.mark.parametrize("reducer", sorted(REDUCERS))
def test_every_reducer_in_int8(tiny: Any, reducer: str) -> None:
    options = Int8Options(Choice("percentile"), Choice("mse"))
    job = Job(tiny.probe(tiny.pixels(4)), tiny.search(), tiny.pixels(8, seed=5), options)
    (made,) = load_exporter("onnx").export(tiny.student(reducer), ["int8"], job)
    assert made.artifact.measured["parity"]["tokens_equal"] > 0.5


def doubling() -> onnx.ModelProto:
    text = """
    <ir_version: 9, opset_import: ["" : 18]>
    graph (float[n] x) => (float[n] z) { y = Add (x, x)  z = Neg (y) }
    """
    return onnx.parser.parse_model(text)


def test_extremes_are_those_of_the_values_seen() -> None:
    feeds = [{"x": np.array([-1.0, 2.0], np.float32)}, {"x": np.array([3.0], np.float32)}]
    ranges = {"y": (-2.0, 6.0), "z": (-6.0, 2.0)}
    assert collect_extremes(doubling(), ["y", "z"], lambda: iter(feeds)) == ranges
    histograms = collect_histograms(doubling(), ["y", "z"], lambda: iter(feeds))
    assert choose_ranges(histograms, "minmax") == ranges
    assert all(seen.counts.sum() == 3 for seen in histograms.values())


def test_methods_clip_an_outlier_in_their_own_ways() -> None:
    values = np.random.default_rng(0).normal(0, 1, 100_000).astype(np.float32)
    values[0] = 50
    feeds = [{"x": part} for part in np.split(values, 10)]
    histograms = collect_histograms(doubling(), ["y"], lambda: iter(feeds))
    errors, highest = {}, {}
    for method in METHODS:
        low, high = choose_ranges(histograms, method)["y"]
        step = (high - low) / 255
        rounded = np.clip(np.rint((2 * values - low) / step), 0, 255) * step + low
        errors[method], highest[method] = float(((rounded - 2 * values) ** 2).mean()), high
    assert highest["minmax"] == 100
    assert 6 < highest["percentile"] < 9
    assert highest["percentile"] < highest["mse"] < highest["minmax"]
    assert highest["entropy"] < highest["minmax"]
    assert errors["mse"] == min(errors.values())


def test_calibration_names_what_is_wrong() -> None:
    with pytest.raises(
        ConversionError, match="unknown calibration method 'best'; known are minmax"
    ):
        choose_ranges({}, "best")
    with pytest.raises(ConversionError, match="calibration saw no photos"):
        collect_histograms(doubling(), ["x"], lambda: iter([]))
