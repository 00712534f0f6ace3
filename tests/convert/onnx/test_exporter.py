"""The fp32 graphs compute what the student computes, whatever the batch and the beams."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from nanocap.convert.errors import ConversionError
from nanocap.convert.exporters import backends, load_exporter
from nanocap.convert.graphs.modules import DecoderGraph
from nanocap.convert.onnx.sessions import open_session
from nanocap.convert.parity import EagerEngine
from nanocap.student.reducers import REDUCERS

TOLERANCE = 1e-4


def difference(ours: Any, theirs: Any) -> float:
    pairs = zip(ours, theirs, strict=True)
    return max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs)


@pytest.mark.parametrize(
    "reducer",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name != "merge" else [])  # 8 s each
        for name in sorted(REDUCERS)
    ],
)
def test_the_exported_encoder_equals_eager(tiny: Any, reducer: str) -> None:
    session = open_session(tiny.encoder(reducer).SerializeToString())
    eager = EagerEngine(tiny.student(reducer))
    for batch in (1, 3):  # traced with 2
        pixels = tiny.pixels(batch)
        found, expected = session.run(None, {"pixels": pixels}), eager.encode(pixels)
        assert found[0].shape == (2, batch, 16 if reducer == "none" else 4, 32)
        assert found[0].dtype == np.float32
        assert np.ptp(expected[0]) > 1  # it computes something
        assert difference(found, expected) < TOLERANCE


@pytest.mark.slow
def test_single_steps_equal_the_full_forward_pass(tiny: Any) -> None:
    student, engine = tiny.student(), tiny.engine(tiny.exported("fp32"))
    length, images, beams = tiny.dimensions.max_tokens, 2, 3
    tokens = np.random.default_rng(0).integers(0, 72, (images, beams, length))
    cross = engine.encode(tiny.pixels(images))
    with torch.no_grad():
        expected = student.decoder(torch.from_numpy(tokens), *map(torch.from_numpy, cross)).numpy()
    cache = (np.zeros((2, images * beams, length, 32), np.float32),) * 2
    for position in range(length):
        step = np.ascontiguousarray(tokens[:, :, position])
        logits, cache = engine.step(step, position, cross, cache)
        assert difference([logits], [expected[:, :, position]]) < TOLERANCE


@pytest.mark.parametrize(("images", "beams"), [(1, 1), (1, 5), (4, 2)])
def test_a_step_equals_eager_for_any_batch_and_beams(tiny: Any, images: int, beams: int) -> None:
    student, engine = tiny.student(), tiny.engine(tiny.exported("fp32"))
    random = np.random.default_rng(images)
    tokens = random.integers(0, 72, (images, beams))
    cross = engine.encode(tiny.pixels(images))
    shape = (2, images * beams, tiny.dimensions.max_tokens, 32)
    cache = tuple(random.standard_normal(shape).astype(np.float32) for _ in range(2))
    logits, after = engine.step(tokens, 7, cross, cache)
    expected, expected_after = EagerEngine(student).step(tokens, 7, cross, cache)
    assert difference([logits, *after], [expected, *expected_after]) < TOLERANCE
    changed = (after[0] != cache[0]).any(axis=(0, 1, 3))
    assert np.flatnonzero(changed).tolist() == [7]  # one position written, the rest as it was


def test_the_exported_step_is_the_students_own(tiny: Any) -> None:
    student = tiny.student()
    random = torch.Generator().manual_seed(1)
    inputs = (
        torch.randint(0, 72, (2, 3), generator=random),
        torch.tensor([4]),
        *(torch.randn(2, 2, 4, 32, generator=random) for _ in range(2)),
        *(torch.randn(2, 6, 12, 32, generator=random) for _ in range(2)),
    )
    with torch.no_grad():
        assert difference(DecoderGraph(student)(*inputs), student.decoder.step(*inputs)) < TOLERANCE


def graphs(made: Any) -> dict[str, onnx.ModelProto]:
    return {
        role: onnx.load_from_string(made.files[path]) for role, path in made.artifact.files.items()
    }


def test_inputs_and_outputs_are_those_of_the_contract(tiny: Any) -> None:
    def signature(values: Any) -> dict[str, list[Any]]:
        return {
            v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
            for v in values
        }

    encoder, decoder = (
        graphs(tiny.exported("fp32"))[role].graph for role in ("encoder", "decoder")
    )
    cross = [2, "batch", 4, 32]  # the decoder's may be of any number of tokens
    cache = [2, "rows", 12, 32]
    assert signature(encoder.input) == {"pixels": ["batch", 64, 64, 3]}
    assert signature(encoder.output) == {"cross_keys": cross, "cross_values": cross}
    assert signature(decoder.input) == {
        "tokens": ["batch", "beams"],
        "position": [1],
        "cross_keys": [2, "batch", "visual_tokens", 32],
        "cross_values": [2, "batch", "visual_tokens", 32],
        "keys": cache,
        "values": cache,
    }
    assert signature(decoder.output) == {
        "logits": ["batch", "beams", 72],
        "new_keys": cache,
        "new_values": cache,
    }


def test_graphs_are_small_and_clean(tiny: Any) -> None:
    for role, model in graphs(tiny.exported("fp32")).items():
        operators = Counter(node.op_type for node in model.graph.node)
        norms = {"encoder": 5, "decoder": 7}[role]
        assert operators["LayerNormalization"] == norms
        assert operators["Gelu"] == 2
        assert operators["Pad"] == 0  # TensorFlow's padding stands in the convolutions
        assert operators["Constant"] == operators["Identity"] == 0
        assert not model.graph.value_info
        assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
        assert sum(operators.values()) < {"encoder": 300, "decoder": 110}[role]


def test_the_embedding_is_stored_once(tiny: Any) -> None:
    table = tiny.student().decoder.embedding.weight.detach().numpy()
    initializers = graphs(tiny.exported("fp32"))["decoder"].graph.initializer
    sizes = [tensor.name for tensor in initializers if np.prod(tensor.dims) == table.size]
    assert len(sizes) == 1
    (stored,) = (numpy_helper.to_array(t) for t in initializers if t.name == sizes[0])
    assert (stored == table).all()


def test_an_unknown_backend_names_those_that_there_are() -> None:
    assert backends() == ("coreml", "executorch", "onnx")
    with pytest.raises(ConversionError, match=r"unknown backend 'tflite'; known are coreml, exec"):
        load_exporter("tflite")
