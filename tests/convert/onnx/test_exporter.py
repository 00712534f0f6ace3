"""The fp32 graphs compute what the student computes, whatever the batch and the beams."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper, numpy_helper
from torch.nn import functional as F

from nanocap.bundle.precisions import PRECISIONS
from nanocap.convert.errors import ConversionError
from nanocap.convert.exporters import backends, load_exporter
from nanocap.convert.graphs.modules import DecoderGraph, EncoderGraph, Graph
from nanocap.convert.graphs.sessions import open_session
from nanocap.convert.graphs.tracing import trace
from nanocap.convert.probe import forced
from nanocap.runtime.engines.state import State
from nanocap.student.decoder import Memory
from nanocap.student.layers import NEVER
from nanocap.student.reducers import REDUCERS

from ..conftest import SPECIAL

TOLERANCE = 1e-4
CROSS = EncoderGraph.outputs


def difference(ours: Any, theirs: Any) -> float:
    pairs = zip(ours, theirs, strict=True)
    return max(float(np.abs(np.asarray(a, float) - np.asarray(b, float)).max()) for a, b in pairs)


def staying(state: State) -> State:
    """The state with words favoured so that each beam goes on from itself, and repeats nothing."""
    images, beams, vocabulary = state["bias"].shape
    bias = np.zeros((images, beams, vocabulary), np.float32)
    for beam in range(beams):
        bias[:, beam, len(SPECIAL) + beams * int(state["position"][0]) + beam] = 1e4 * (
            beams - beam
        )
    return {**state, "bias": bias, "totals": np.zeros_like(state["totals"])}


def answered(state: State) -> State:
    """The state with nothing where there is no answer: which of equals stands there is open."""
    there = (state["answer_scores"] > NEVER)[..., None]
    answers = ("answer_ids", "answer_log_probabilities")
    return {**state, **{name: np.where(there, state[name], 0) for name in answers}}


@pytest.mark.parametrize(
    "reducer",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name != "merge" else [])  # 8 s each
        for name in sorted(REDUCERS)
    ],
)
def test_the_exported_encoder_equals_eager(tiny: Any, reducer: str) -> None:
    session = open_session(tiny.encoder(reducer).SerializeToString())
    eager = tiny.eager(tiny.student(reducer))
    for batch in (1, 3):  # traced with 2
        pixels = tiny.pixels(batch)
        state = tiny.begin(eager, pixels)
        found, expected = session.run(None, {"pixels": pixels}), [state[n] for n in CROSS]
        assert found[0].shape == (2, batch, 16 if reducer == "none" else 4, 32)
        assert found[0].dtype == np.float32
        assert np.ptp(expected[0]) > 1  # it computes something
        assert difference(found, expected) < TOLERANCE


@pytest.mark.slow
def test_single_steps_equal_the_full_forward_pass(tiny: Any) -> None:
    student, engine = tiny.student(), tiny.engine(tiny.exported("fp32"))
    length, images, beams = tiny.dimensions.max_tokens, 2, 3
    tokens = np.random.default_rng(0).integers(0, 72, (images, beams, length))
    state = tiny.begin(engine, tiny.pixels(images), beams)
    keys, values = (torch.from_numpy(state[name]) for name in CROSS)
    memory = Memory(keys, values, *2 * (torch.zeros(len(keys), 0),))
    with torch.no_grad():
        expected = student.decoder(torch.from_numpy(tokens), memory).numpy()
    for position in range(length):
        assert state["position"] == position
        state = forced(engine, staying(state), tokens[:, :, position])
        assert difference([state["logits"]], [expected[:, :, position]]) < TOLERANCE


@pytest.mark.parametrize(("images", "beams"), [(1, 1), (1, 5), (4, 2)])
def test_a_step_equals_eager_for_any_batch_and_beams(tiny: Any, images: int, beams: int) -> None:
    engine, eager = tiny.engine(tiny.exported("fp32")), tiny.eager()
    random = np.random.default_rng(images)
    state = tiny.begin(engine, tiny.pixels(images), beams)
    state["position"] = np.array([7])
    state["tokens"] = random.integers(0, 72, (images, beams))
    for name in ("keys", "values"):
        layers, rows, _, width = state[name].shape
        state[name] = np.zeros((layers, rows, 7, width), np.float32)
    for name in ("keys", "values", "totals", "log_probabilities"):
        state[name] = random.standard_normal(state[name].shape).astype(np.float32)
    after, expected = (answered(each.step(state, logits=True)) for each in (engine, eager))
    assert after.keys() == expected.keys()
    assert difference(after.values(), expected.values()) < TOLERANCE
    after = engine.step(staying(state))
    assert after["keys"].shape[2] == 8  # one position more, the rest as it was
    assert np.array_equal(after["keys"][:, :, :7], state["keys"])


def test_the_exported_step_is_the_students_own(tiny: Any) -> None:
    student = tiny.student()
    random = torch.Generator().manual_seed(1)
    inputs = (
        torch.randint(0, 72, (2, 3), generator=random),
        torch.tensor([4]),
        *(torch.randn(2, 2, 4, 32, generator=random) for _ in range(2)),
        *(torch.randn(2, 6, 4, 32, generator=random) for _ in range(2)),
    )
    with_room = (*inputs[:4], *(F.pad(cache, (0, 0, 0, 1)) for cache in inputs[4:]))
    with torch.no_grad():
        of_photo = Memory(*with_room[2:4], *2 * (torch.zeros(2, 0),))
        logits, _, *written = student.decoder.step(*with_room[:2], of_photo, *with_room[4:])
        expected = (logits, *written)
        assert difference(DecoderGraph(student)(*inputs), expected) < TOLERANCE


@pytest.mark.parametrize("precision", PRECISIONS["onnx"])
def test_the_state_is_as_the_artifact_says(tiny: Any, precision: str) -> None:
    """Its names, in their order, types and shapes, as the graphs say and as they really run."""
    made = tiny.exported(precision)
    state = made.artifact.state
    moved = [tensor for tensor in state if not tensor.constant]
    begin, step = (tiny.graph(precision, role).graph for role in ("begin", "step"))
    assert signature(begin.input) == {
        "pixels": ("uint8", ["images", 64, 64, 3]),
        "beams": ("int64", []),
        "quality": ("int64", [1]),
        "length": ("int64", [1]),
        "length_penalty": ("float32", [1]),
    }
    assert signature(begin.output) == {t.name: (t.type, list(t.shape)) for t in state}
    assert list(signature(begin.output)) == [tensor.name for tensor in state]
    # one decoder serves encoders of any number of tokens
    free = {t.name: (t.type, list(t.shape)) for t in state}
    free |= dict.fromkeys(CROSS, ("float32", [2, "images", "memory_tokens", 32]))
    assert signature(step.input) == free
    assert signature(step.output) == {
        "logits": ("float32", ["images", "beams", 72]),
        **{
            f"new_{t.name}": (t.type, ["written" if size == "places" else size for size in t.shape])
            for t in moved
        },
    }
    engine = tiny.engine(made)
    for images, beams in ((1, 1), (1, 4), (3, 1), (3, 4)):  # traced with 2 and 3
        sizes = {"images": images, "beams": beams, "rows": images * beams}
        before = tiny.begin(engine, tiny.pixels(images), beams)
        after = engine.step(before, logits=True)
        assert after.pop("logits").shape == (images, beams, 72)
        assert before.keys() == after.keys() == {tensor.name for tensor in state}
        for tensor in state:
            for places, found in enumerate((before[tensor.name], after[tensor.name])):
                axes = {**sizes, "places": places}
                assert found.dtype == np.dtype(tensor.type)
                assert found.shape == tuple(axes.get(size, size) for size in tensor.shape)
            assert (after[tensor.name] is before[tensor.name]) == tensor.constant


def signature(values: Any) -> dict[str, tuple[str, list[Any]]]:
    return {
        v.name: (
            helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type).name,
            [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim],
        )
        for v in values
    }


def test_graphs_are_small_and_clean(tiny: Any) -> None:
    for role, within in (("encoder", "begin"), ("decoder", "step")):
        model, whole = tiny.part("fp32", role), tiny.graph("fp32", within)
        operators = Counter(node.op_type for node in model.graph.node)
        norms = {"encoder": 5, "decoder": 7}[role]
        assert operators["LayerNormalization"] == norms
        assert operators["Gelu"] == 2
        assert operators["Pad"] == 0  # TensorFlow's padding stands in the convolutions
        assert operators["Constant"] == operators["Identity"] == 0
        assert sum(operators.values()) < {"encoder": 300, "decoder": 110}[role]
        searching = len(whole.graph.node) - len(model.graph.node)
        assert 0 < searching < {"begin": 35, "step": 140}[within]
        assert not any(node.op_type == "Constant" for node in whole.graph.node)
        assert not whole.graph.value_info
        assert not any(node.metadata_props or node.doc_string for node in whole.graph.node)


def test_the_embedding_is_stored_once(tiny: Any) -> None:
    table = tiny.student().decoder.embedding.weight.detach().numpy()
    initializers = tiny.graph("fp32", "step").graph.initializer
    sizes = [tensor.name for tensor in initializers if np.prod(tensor.dims) == table.size]
    assert len(sizes) == 1
    (stored,) = (numpy_helper.to_array(t) for t in initializers if t.name == sizes[0])
    assert (stored == table).all()


@pytest.mark.parametrize("precision", PRECISIONS["onnx"])
def test_the_search_is_fp32_in_every_precision(tiny: Any, precision: str) -> None:
    """Its sums decide in their last digits, and what it never takes is beyond fp16."""
    for role in ("begin", "step"):
        ours, exact = (
            {
                t.name: t.SerializeToString()
                for t in tiny.graph(p, role).graph.initializer
                if t.name.startswith("search/")
            }
            for p in (precision, "fp32")
        )
        assert ours == exact
        assert ours


class Zeros(Graph):
    inputs, outputs = ("x",), ("y", "z")

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(3), x + torch.zeros(3)


def test_the_exporters_remarks_are_for_no_one(caplog: pytest.LogCaptureFixture) -> None:
    """It has one on an output that is a constant, as some of a search's state are."""
    trace(Zeros(), (torch.ones(3),))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_an_unknown_backend_names_those_that_there_are() -> None:
    assert backends() == ("coreml", "executorch", "onnx")
    with pytest.raises(ConversionError, match=r"unknown backend 'tflite'; known are coreml, exec"):
        load_exporter("tflite")
