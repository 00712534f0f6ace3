"""What is lowered to ExecuTorch computes what the student computes, and little of it outside."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("executorch", reason="pip install 'nanocap[executorch]' to test ExecuTorch")

from nanocap import Captioner
from nanocap.bundle import Bundle
from nanocap.convert.build import build_bundle
from nanocap.convert.errors import ConversionError
from nanocap.convert.executorch.encoder import EncodeOne
from nanocap.convert.executorch.integers import aten, quantize
from nanocap.convert.executorch.lowering import HEAVY
from nanocap.convert.executorch.merging import Merging
from nanocap.convert.executorch.norms import Norm, centred, reads, writes
from nanocap.convert.executorch.programs import MAX_BEAMS, begin, begin_example
from nanocap.convert.executorch.tables import ByteTable, FloatTable, NibbleTable, Table
from nanocap.convert.exporters import Exported, Job, load_exporter
from nanocap.convert.graphs.modules import EncoderGraph
from nanocap.convert.parity import EagerEngine
from nanocap.convert.probe import forced
from nanocap.errors import EngineError, EngineWarning, OptionError
from nanocap.runtime.engines import Engine, load_engine
from nanocap.student.merging import apply_assignment, bipartite_soft_matching
from nanocap.student.reducers import REDUCERS
from nanocap.student.search import SearchState

pytestmark = pytest.mark.slow  # lowering and converting take a minute

TOLERANCE = 1e-4
LINEAR = aten.linear.default


def export(tiny: Any, *precisions: str) -> list[Exported]:
    checkpoint = tiny.checkpoint()
    job = Job(
        tiny.probe(tiny.pixels(4)),
        checkpoint.search(),
        tiny.pixels(8, seed=5),
        ids=checkpoint.ids(),
    )
    return load_exporter("executorch").export(checkpoint.student, precisions, job)


@pytest.fixture(scope="module")
def both(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle for ExecuTorch and ONNX in fp32; lowering takes most of the time of these tests."""
    out = tmp_path_factory.mktemp("bundles") / "both"
    return build_bundle(
        tiny.checkpoint(), out, backends=["executorch", "onnx"], precisions=["fp32"]
    )


@pytest.fixture(scope="module")
def made(both: Path) -> Exported:
    opened = Bundle(both)
    artifact = opened.manifest.artifacts[0]
    return Exported(artifact, {path: opened.read(path) for path in artifact.files.values()})


@pytest.fixture(scope="module")
def engine(made: Exported) -> Engine:
    return load_engine(made.artifact, made.files, 1)


def test_a_norm_without_its_mean_equals_the_layer_norm() -> None:
    torch.manual_seed(0)
    norm, before, after = nn.LayerNorm(24), nn.Linear(8, 24), nn.Linear(24, 10)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(5, 8)
    stream = writes(before)(x)
    assert stream.mean(1).abs().max() < 1e-6
    assert torch.allclose(stream, centred(before(x)), atol=1e-6)
    ours = reads(norm, after, after, scales=(1.0, 0.5))(Norm(norm)(stream))
    theirs = after(norm(before(x)))
    assert torch.allclose(ours, torch.cat([theirs, theirs / 2], 1), atol=1e-5)


@pytest.mark.parametrize(("tokens", "keep"), [(16, 8), (16, 11), (16, 15), (9, 4), (9, 7), (3, 2)])
def test_merging_in_arithmetic_equals_the_reference(tokens: int, keep: int) -> None:
    torch.manual_seed(tokens * keep)
    merging = Merging(tokens, keep, 6)
    keys, x = torch.randn(tokens, 6), torch.randn(tokens, 5)
    alike = keys[:1].expand(tokens, 6)  # every similarity is the same: ties fall to the lower index
    for metric in (keys, keys.round(), alike):
        assignment = bipartite_soft_matching(metric[None], keep)
        for size in (None, torch.randint(1, 4, (tokens, 1)).float()):
            sizes = torch.ones(tokens, 1) if size is None else size
            expected, total = apply_assignment(assignment, x[None], sizes[None])
            found, left = merging(metric, x, size)
            assert torch.allclose(left, total[0])
            assert torch.allclose(found, expected[0], atol=1e-5)
            assert left.sum() == sizes.sum()


@pytest.mark.parametrize("reducer", sorted(REDUCERS))
def test_the_rewritten_encoder_equals_the_graph(tiny: Any, reducer: str) -> None:
    student = tiny.student(reducer)
    pixels = torch.from_numpy(tiny.pixels(1))
    with torch.no_grad():
        keys, values = EncodeOne(student, FloatTable).eval()(pixels)  # [L * H, C, N], [L * H, N, C]
        expected = EncoderGraph(student).eval()(pixels)  # [L, 1, N, D] each
    tokens = expected[0].shape[2]
    for found, wanted in ((keys.transpose(1, 2), expected[0]), (values, expected[1])):
        by_head = wanted.reshape(2, tokens, 2, 16).transpose(1, 2).reshape(4, tokens, 16)
        assert (found - by_head).abs().max() < TOLERANCE
    assert keys.std() > 0.1


def test_one_delegate_does_all_but_the_search(made: Exported) -> None:
    split = made.artifact.measured["delegation"]
    for method, most in (("begin", 25), ("step", 150)):
        assert split[method]["delegates"] == 1
        outside = split[method]["outside"]
        assert sum(outside.values()) <= most
        assert not any(name.startswith((*HEAVY, "aten._softmax")) for name in outside)
    # the table of embeddings and that of positions
    assert split["step"]["outside"]["aten.embedding"] == 2
    assert split["step"]["outside"]["aten.topk"] == 3


@pytest.mark.parametrize(("images", "beams"), [(1, 1), (1, MAX_BEAMS), (3, 2)])
def test_steps_equal_eager_for_any_batch_and_beams(
    tiny: Any, engine: Engine, images: int, beams: int
) -> None:
    """Position by position, fed tokens of chance, the beams reordered on the way."""
    eager = EagerEngine(tiny.student(), tiny.checkpoint().search())
    random = np.random.default_rng(beams)
    states = [each.begin(tiny.pixels(images), beams, 3, 6, 1.0) for each in (engine, eager)]
    for _ in range(tiny.dimensions.max_tokens):
        tokens = random.integers(9, 72, (images, beams))
        given = {name: value.copy() for name, value in states[0].items()}
        ours, theirs = (
            forced(each, state, tokens) for each, state in zip((engine, eager), states, strict=True)
        )
        assert ours["logits"].shape == (images, beams, 72)
        for name in (*SearchState._fields, "logits"):
            assert ours[name].dtype == theirs[name].dtype
            assert np.allclose(ours[name], theirs[name], rtol=1e-6, atol=TOLERANCE), name
        # what was given is left as it is
        assert all(np.array_equal(value, given[name]) for name, value in states[0].items())
        states = [ours, theirs]
    assert not states[0]["going"].any()


def test_the_file_says_its_dimensions_and_ids(made: Exported) -> None:
    from executorch.runtime import Runtime

    (data,) = made.files.values()
    program = Runtime.get().load_program(data)
    expected = {
        "layers": 2, "heads": 2, "width": 32, "vocabulary": 72, "max_tokens": 12,
        "visual_tokens": 4, "image_size": 64, "max_beams": MAX_BEAMS, "pad_id": 0, "end_id": 1,
        "unknown_id": 2, "quality_high_id": 3, "quality_medium_id": 4, "quality_low_id": 5,
        "length_any_id": 6, "length_short_id": 7, "length_long_id": 8,
    }  # fmt: skip
    assert program.method_names == {"begin", "step", *expected}
    assert {n: program.load_method(n).execute(())[0] for n in expected} == expected


def test_a_bundle_captions_as_with_onnx(both: Path, tiny: Any) -> None:
    manifest = Bundle(both).manifest
    names = [artifact.name for artifact in manifest.artifacts]
    assert names == ["executorch-fp32", "onnx-fp32"]
    ours, theirs = (Captioner(both, artifact=name, threads=1) for name in names)
    pictures = list(tiny.pixels(5))
    for beams, n_best in ((1, 1), (3, 1), (3, 3), (MAX_BEAMS, MAX_BEAMS)):
        captions = [
            [
                [one.text for one in (best, *best.alternatives)]
                for best in each(pictures, beams=beams, n_best=n_best)
            ]
            for each in (ours, theirs)
        ]
        assert captions[0] == captions[1]
        assert len({some[0] for some in captions[0]}) > 1
        assert max(map(len, captions[0])) == n_best
    with pytest.raises(OptionError, match="beams must be at most 8, got 9"):
        ours(pictures, beams=MAX_BEAMS + 1)
    assert manifest.golden.artifact == "executorch-fp32"
    assert manifest.artifacts[0].measured["parity"]["max_logit_difference"] < TOLERANCE


@pytest.mark.parametrize(
    ("table", "step"), [(FloatTable, 0), (ByteTable, 1 / 127), (NibbleTable, 1 / 7)]
)
def test_tables_give_their_rows_back(table: Table, step: float) -> None:
    """To half a step, a share of the largest number of a row or of a block of it."""
    rows = torch.randn(9, 64)
    index = torch.tensor([8, 0, 3])
    wrong = (table(rows)(index) - rows[index]).abs() / rows[index].abs().amax(1, keepdim=True)
    assert wrong.max() <= step / 2 + 1e-6
    assert not table(torch.zeros(2, 64))(torch.tensor([1])).any()


def test_all_that_holds_weights_becomes_integers(tiny: Any) -> None:
    """And nothing else does: norms, attention and merging stay as they are."""
    student, photos = tiny.student(), tiny.pixels(2)
    program = begin(student, tiny.checkpoint().search(), photos)
    rest = begin_example(student.dimensions)[1:]
    inputs = [(torch.from_numpy(photo[None]), *rest) for photo in photos]
    holding = [n for n in program.graph.nodes if n.target in (aten.conv2d.default, LINEAR)]
    quantized = quantize(program, inputs)
    weights = [value for value in quantized.state_dict().values() if value.dtype == torch.int8]
    modules = [
        m for m in EncodeOne(student, FloatTable).modules() if isinstance(m, nn.Conv2d | nn.Linear)
    ]
    assert len(weights) == len(modules) < len(holding)
    with torch.no_grad():
        exact, rounded = (m(*inputs[0])[0] for m in (program.module(), quantized))
    # a rounded key may merge with another token, so a few features are far off
    assert 0 < (exact - rounded).abs().mean() < 0.4 * exact.std()


def test_integers_caption_much_as_floats_do(tiny: Any, made: Exported) -> None:
    int8, int4 = export(tiny, "int8", "int4")
    sizes = [each.artifact.measured["bytes"] for each in (made, int8, int4)]
    assert sizes[0] > 3 * sizes[1] > 3 * sizes[2]
    for each in (int8, int4):
        measured = each.artifact.measured
        assert measured["parity"]["mean_logit_difference"] < 0.9  # of a spread of 2.8
        assert measured["delegation"]["step"]["delegates"] <= 4
        engine = load_engine(each.artifact, each.files, 1)
        state = engine.begin(tiny.pixels(2), 1, 3, 6, 1.0)
        assert np.isfinite(state["cross_keys"]).all()
        assert np.ptp(state["cross_values"]) > 1


def test_integers_need_photos(tiny: Any) -> None:
    job = Job(tiny.probe(tiny.pixels(1)), tiny.checkpoint().search(), tiny.pixels(0))
    with pytest.raises(ConversionError, match="int8 is calibrated on photos"):
        load_exporter("executorch").export(tiny.student(), ["int8"], job)


def test_unknown_precisions_and_impossible_budgets_are_refused(tiny: Any) -> None:
    exporter = load_exporter("executorch")
    job = Job(tiny.probe(tiny.pixels(1)), tiny.checkpoint().search(), tiny.pixels(0))
    with pytest.raises(ConversionError, match="executorch has no precision 'int3'; it has "):
        exporter.export(tiny.student(), ["int3"], job)
    with pytest.raises(ConversionError, match="merge keeps at least half"):
        exporter.export(tiny.student(), ["fp32"], replace(job, tokens=(1,)))


def test_programs_that_cannot_be_run_are_refused(made: Exported) -> None:
    artifact, files = made.artifact, made.files
    ((path, data),) = files.items()
    with pytest.raises(EngineError, match="has no model; build the bundle again"):
        load_engine(replace(artifact, files={}), files, 1)
    for damaged in (b"", b"no program", data[:200], data[: len(data) // 2]):
        with pytest.raises(EngineError, match=r"ExecuTorch refuses executorch-fp32/model\.pte"):
            load_engine(artifact, {path: damaged}, 1)


def test_inputs_that_do_not_fit_are_refused(engine: Engine) -> None:
    with pytest.raises(EngineError, match="ExecuTorch cannot run the program"):
        engine.begin(np.zeros((1, 32, 32, 3), np.uint8), 1, 3, 6, 1.0)


def test_threads_are_those_of_the_first_engine(made: Exported, engine: Engine) -> None:
    with pytest.warns(EngineWarning, match="runs with 1 threads"):
        load_engine(made.artifact, made.files, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_engine(made.artifact, made.files, None)


def test_the_state_is_as_the_manifest_says(tiny: Any, made: Exported, engine: Engine) -> None:
    lengths = {"images": 2, "beams": 5, "rows": 10}
    state = engine.begin(tiny.pixels(2), 5, 3, 6, 1.0)
    for each in (state, engine.step(state)):
        assert list(each) == [tensor.name for tensor in made.artifact.state]
        for tensor in made.artifact.state:
            assert each[tensor.name].shape == tuple(lengths.get(s, s) for s in tensor.shape)
            assert each[tensor.name].dtype == tensor.type
