"""What int8 leaves in float is what measurement says, within the budgets, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nanocap.convert.errors import ConversionError
from nanocap.convert.exporters import Job, load_exporter
from nanocap.convert.graphs.sessions import open_session, running_operators
from nanocap.convert.quantization.blocks import blocks
from nanocap.convert.quantization.divergence import Judge
from nanocap.convert.quantization.int8 import (
    Choice,
    Int8Options,
    Quantizable,
    float_layers,
    linear_nodes,
)
from nanocap.convert.quantization.ranges import METHODS
from nanocap.convert.quantization.sensitivity import FLOAT_BYTES, FLOAT_SHARE, WORTH, search

WIDTH, WIDE = 32, 2048
OUTLIER = 1000.0  # times as large as its neighbours is one channel
PHOTOS = 12


def chain(outlier_before: int) -> onnx.ModelProto:
    """Four linear layers with Tanh between; one of them is given a channel of huge values.

    The outlier's row of weights is as much smaller, so that it counts no more than the others. The
    last layer is wide: it is most of the work and of the bytes.
    """
    random = np.random.default_rng(0)
    nodes, tensors, x = [], [], "x"
    for index in range(4):
        matrix = random.normal(0, WIDTH**-0.5, (WIDTH, WIDE if index == 3 else WIDTH))
        if index == outlier_before:
            spread = np.ones(WIDTH)
            spread[5] = OUTLIER
            matrix /= spread[:, None]
            tensors.append(numpy_helper.from_array(spread.astype(np.float32), "spread"))
            nodes.append(helper.make_node("Mul", [x, "spread"], ["spread_out"], "spread"))
            x = "spread_out"
        weight = f"layers.{index}.fc.weight"
        tensors.append(numpy_helper.from_array(matrix.astype(np.float32), weight))
        nodes.append(helper.make_node("MatMul", [x, weight], [f"y{index}"], f"fc{index}"))
        nodes.append(helper.make_node("Tanh", [f"y{index}"], [f"t{index}"], f"tanh{index}"))
        x = f"t{index}"
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "chain",
        [info("x", TensorProto.FLOAT, ["rows", WIDTH])],
        [info("t3", TensorProto.FLOAT, ["rows", WIDE])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def inputs(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (PHOTOS, WIDTH)).astype(np.float32)


def quantizable(model: onnx.ModelProto) -> Quantizable:
    return Quantizable.decoder(model, lambda: iter([{"x": inputs(s)} for s in range(4)]))


def error(model: onnx.ModelProto) -> Callable[[onnx.ModelProto], np.ndarray]:
    """Mean square difference from the float graph, row by row, on inputs not calibrated on."""

    def outputs(graph: onnx.ModelProto) -> np.ndarray:
        return open_session(graph.SerializeToString()).run(None, {"x": inputs(99)})[0]

    expected = outputs(model)
    return lambda candidate: ((outputs(candidate) - expected) ** 2).mean(1).astype(np.float64)


def test_a_layer_of_outliers_is_found_and_left_in_float() -> None:
    model = chain(outlier_before=1)
    graph, measure = quantizable(model), error(model)
    counted: list[tuple[int, int]] = []
    found = search(graph, measure, lambda done, total: counted.append((done, total)))
    assert found.choice.floats == ("layers.1",)
    assert found.score < 0.1 * min(found.scores.values())
    assert found.gained > WORTH
    assert max(found.gains, key=lambda name: found.gains[name]) == "layers.1"
    made = graph.quantized(found.choice)
    assert float_layers(made, ("MatMul",)) == 1
    assert measure(made).mean() == pytest.approx(found.score)
    assert "layers.1 in float, which gains" in found.describe()
    assert found.to_dict()["in_float"] == "layers.1"
    # each method, each of three blocks (the wide one is too large), and the one that was kept
    assert counted[-1] == (len(METHODS) + 3 + 1,) * 2
    assert [done for done, _ in counted] == list(range(1, len(counted) + 1))
    assert found == search(graph, measure)


def test_nothing_stays_float_where_nothing_is_to_gain() -> None:
    model = chain(outlier_before=-1)
    graph = quantizable(model)
    found = search(graph, error(model))
    assert found.choice.floats == ()
    assert set(found.scores) == set(METHODS)
    assert found.score == min(found.scores.values()) < WORTH
    assert found.gains == {}
    assert "nothing in float, there is less than 0.001 to gain" in found.describe()
    assert found.to_dict()["in_float"] == "nothing"


def test_what_is_too_large_stays_int8_however_much_it_loses() -> None:
    model = chain(outlier_before=3)
    found = search(quantizable(model), error(model))
    (wide,) = (block for block in quantizable(model).blocks() if block.name == "layers.3")
    assert wide.share > FLOAT_SHARE
    assert found.score > WORTH
    assert "layers.3" not in found.gains
    assert found.choice.floats == ()
    assert "no block gains enough" in found.describe()


def test_a_gain_by_chance_is_none() -> None:
    """One photo of a dozen is much better, the others are not."""
    graph = quantizable(chain(outlier_before=-1))
    base, lucky = np.full(PHOTOS, 0.01), np.full(PHOTOS, 0.01)
    lucky[3] = -0.09
    found = search(graph, lambda made: lucky if float_layers(made, ("MatMul",)) else base)
    assert max(found.gains.values()) > 5 * WORTH
    assert found.choice.floats == ()


def test_of_equals_the_first() -> None:
    graph = quantizable(chain(outlier_before=-1))

    def measure(made: onnx.ModelProto) -> np.ndarray:
        return np.full(PHOTOS, 1 - 0.01 * float_layers(made, ("MatMul",)))

    found = search(graph, measure)
    assert found.choice == Choice("minmax", ("layers.0", "layers.1", "layers.2"))
    assert found.score == pytest.approx(0.97)


def test_a_block_that_is_not_there_is_named() -> None:
    graph = quantizable(chain(outlier_before=-1))
    with pytest.raises(ConversionError, match=r"no block 'layers\.9' to leave in float; there are"):
        graph.quantized(Choice("minmax", ("layers.9",)))


def test_blocks_are_the_students_modules(tiny: Any) -> None:
    model = tiny.encoder("merge")
    graph = Quantizable.encoder(model, lambda: iter([{"pixels": tiny.pixels(2)}]))
    found = {block.name: block for block in graph.blocks()}
    assert "encoder.trunk.blocks.15" in found
    assert {"encoder.from_top", "encoder.blocks.0", "decoder.layers.1"} <= set(found)
    # a convolution alone would be quantized by ONNX Runtime itself, badly
    assert not {"encoder.trunk.stem", "encoder.trunk.head"} & set(found)
    total = sum(block.share for block in blocks(model, graph.nodes))
    assert 0.5 < total < 1
    linear = blocks(model, linear_nodes(model))
    assert sum(block.share for block in linear) == pytest.approx(1)
    assert sum(block.bytes for block in linear) < FLOAT_BYTES
    # expand, depthwise, project: what is left in float does run in float
    made = graph.quantized(Choice("minmax", ("encoder.trunk.blocks.4",)))
    running = running_operators(made.SerializeToString())
    assert running["Conv"] + running["FusedConv"] == 3
    assert running["QLinearConv"] == 46


def test_the_judge_knows_no_difference_where_there_is_none(tiny: Any) -> None:
    encoder, decoder = (tiny.part("fp32", role) for role in ("encoder", "decoder"))
    judge = Judge(encoder, decoder, tiny.search_graphs, tiny.probe(tiny.pixels(10)))
    assert judge.photos == 10
    assert np.abs(judge.encoder(encoder)).max() < 1e-9
    others = (tiny.part(precision, "decoder") for precision in ("int8", "int4"))
    scores = [judge.decoder(each) for each in (decoder, *others)]
    assert all((each > -1e-12).all() and each.shape == (10,) for each in scores)
    assert scores[0].mean() < scores[1].mean() < scores[2].mean()


@pytest.mark.slow
def test_int8_is_searched_for_and_says_so(tiny: Any) -> None:
    lines: list[str] = []
    probe, calibration = tiny.probe(tiny.pixels(4)), tiny.pixels(24, seed=5)
    job = Job(probe, tiny.search(), calibration, Int8Options(), report=lines.append)
    (made,) = load_exporter("onnx").export(tiny.student(), ["int8"], job)
    found = made.artifact.measured["int8"]
    for role in ("encoder", "decoder"):
        said = found[role]
        assert set(said["nats_a_piece"]) == set(METHODS)
        assert said["nats_a_piece"][said["method"]] == min(said["nats_a_piece"].values())
        assert said["photos"] == 6
        assert any(f"int8 {role}: minmax 0." in line for line in lines)
    again = load_exporter("onnx").export(tiny.student(), ["int8"], replace(job))[0]
    assert again.files == made.files
