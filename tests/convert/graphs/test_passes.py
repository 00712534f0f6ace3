"""Tables of floats as int8 rows: within half a step, and only the rows that are needed."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from nanocap.convert.graphs.passes import FEWEST_ROWS, quantize_tables

ROWS, WIDTH = 2 * FEWEST_ROWS, 8
TABLE = np.random.default_rng(0).normal(size=(ROWS, WIDTH)).astype(np.float32)
TABLE[3] = 0  # a row without a scale of its own


def model(listed: list[int] | None) -> onnx.ModelProto:
    """Rows of TABLE by their numbers, or by places in a list of numbers."""
    tensors = [numpy_helper.from_array(TABLE, "table")]
    nodes = [helper.make_node("Gather", ["table", "rows"], ["out"], "look")]
    if listed is not None:
        tensors.append(numpy_helper.from_array(np.array(listed), "listed"))
        nodes.insert(0, helper.make_node("Gather", ["listed", "asked"], ["rows"], "choose"))
    name = "rows" if listed is None else "asked"
    graph = helper.make_graph(
        nodes,
        "look-up",
        [helper.make_tensor_value_info(name, TensorProto.INT64, [1, "count"])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, "count", WIDTH])],
        tensors,
    )
    return helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 18)])


def run(made: onnx.ModelProto, numbers: list[int]) -> np.ndarray:
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {session.get_inputs()[0].name: np.array([numbers])}
    found: np.ndarray = session.run(None, feeds)[0][0]
    return found


def test_rows_are_within_half_a_step() -> None:
    made = quantize_tables(model(None))
    found = run(made, list(range(ROWS)))
    step = np.abs(TABLE).max(1, keepdims=True) / 127
    assert (np.abs(found - TABLE) <= step / 2 + 1e-7).all()
    assert len(made.SerializeToString()) < TABLE.nbytes / 2


def test_only_rows_that_can_be_chosen_stay() -> None:
    listed = [5, 400, 5, 17]
    made = quantize_tables(model(listed))
    np.testing.assert_array_equal(
        run(made, [0, 1, 2, 3]), run(quantize_tables(model(None)), listed)
    )
    sizes = {one.name: list(one.dims) for one in made.graph.initializer}
    assert sizes["table_quantized"] == [3, WIDTH]
    assert "table" not in sizes


def test_small_tables_stay_as_they_are() -> None:
    made = model(None)
    made.graph.initializer[0].CopyFrom(numpy_helper.from_array(TABLE[:40], "table"))
    before = made.SerializeToString()
    assert quantize_tables(made).SerializeToString() == before
