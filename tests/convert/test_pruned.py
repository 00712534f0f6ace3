"""A pruned student through conversion and runtime: other numbers in the same graphs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from nanocap import Captioner
from nanocap.bundle import Bundle
from nanocap.bundle.manifest import SearchDefaults
from nanocap.convert.build import build_bundle
from nanocap.convert.checkpoint import Checkpoint
from nanocap.convert.errors import ConversionError
from nanocap.convert.exporters import Job, load_exporter
from nanocap.convert.graphs.modules import DECODER_AXES, DecoderGraph, Sizes
from nanocap.convert.graphs.tracing import trace
from nanocap.convert.graphs.visual_tokens import with_tokens
from nanocap.convert.graphs.whole_caption import whole_caption
from nanocap.convert.parity import EagerEngine, check_exact, compare
from nanocap.distill.pruning.magnitude import prune_by_magnitude
from nanocap.measure.bench.counts import count
from nanocap.measure.bench.graphs import open_session
from nanocap.measure.bench.photos import draw_photo
from nanocap.measure.bench.stages import STEP, Setup
from nanocap.runtime.engines.coreml import CoreMLEngine, write_packages
from nanocap.student import Dimensions, Student
from nanocap.student.dimensions import Widths

pytestmark = pytest.mark.slow

#: No two widths alike, so that none can stand for another.
WIDTHS = Widths(
    encoder_attention=(14, 24),
    encoder_mlp=(41, 7),
    decoder_attention=18,
    cross_attention=12,
    decoder_mlp=(1, 37),
)


@pytest.fixture(scope="module")
def pruned(tiny: Any) -> Checkpoint:
    """Whose every width is odd in some way."""
    student = tiny.student_of(replace(tiny.dimensions, pruned=WIDTHS))
    return Checkpoint(student, tiny.tokenizer_json(), tiny.training)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, tiny: Any, pruned: Checkpoint) -> Path:
    photos = tmp_path_factory.mktemp("photos")
    for index, picture in enumerate(tiny.pixels(12, seed=5)):
        Image.fromarray(picture).save(photos / f"{index}.png")
    return build_bundle(
        pruned,
        tmp_path_factory.mktemp("bundles") / "pruned",
        precisions=["int8", "fp32"],
        photos=[photos],
        calibration_photos=8,
        golden=photos / "0.png",
    )


def test_the_manifest_tells_the_runtime_the_widths(bundle: Path, tiny: Any) -> None:
    manifest = Bundle(bundle).manifest
    sizes = manifest.sizes
    assert (sizes.width, sizes.cache_width, sizes.cross_width) == (32, 18, 12)
    own = {k: v for k, v in manifest.dimensions.items() if k in tiny.dimensions.to_dict()}
    pruned = {**own, "pruned": manifest.dimensions["pruned"]}
    assert Dimensions.from_dict(json.loads(json.dumps(pruned))).pruned == WIDTHS
    assert "attentions and MLPs pruned" in (bundle / "README.md").read_text(encoding="utf-8")


def test_a_whole_student_says_nothing_of_widths(tiny: Any) -> None:
    dimensions = tiny.checkpoint().dimensions()
    assert not {"pruned", "cache_width", "cross_width"} & dimensions.keys()


def test_fp32_is_exact_and_int8_is_near(bundle: Path) -> None:
    measured = {a.precision: a.measured["parity"] for a in Bundle(bundle).manifest.artifacts}
    assert measured["fp32"]["max_logit_difference"] < 1e-4
    assert measured["int8"]["mean_logit_difference"] < 0.5  # of logits that deviate by 2.8


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_it_captions_through_the_runtime(bundle: Path, tiny: Any, precision: str) -> None:
    captioner, pictures = Captioner(bundle, artifact=f"onnx-{precision}"), list(tiny.pixels(4))
    captions = [caption.text for caption in captioner(pictures)]  # three beams
    assert len(set(captions)) > 1
    assert captions == [captioner(picture).text for picture in pictures]


def test_the_runtime_says_what_eager_says(bundle: Path, tiny: Any, pruned: Checkpoint) -> None:
    pixels = tiny.pixels(6)
    eager, tokens = EagerEngine(pruned.student, pruned.search()), pruned.tokens()
    state = pruned.probe(pixels, SearchDefaults()).begin(eager, pixels)
    while state["going"].any():
        state = eager.step(state)
    captioner = Captioner(bundle, artifact="onnx-fp32")
    for row, picture in zip(state["answer_ids"][:, 0].tolist(), pixels, strict=True):
        ids = [token for token in row if token not in (tokens.end, tokens.pad)]
        assert ids, "random weights that say nothing"
        assert [token.id for token in captioner(picture, beams=1).tokens] == ids


def test_one_graph_from_pixels_to_ids(bundle: Path, tiny: Any) -> None:
    opened = Bundle(bundle)
    artifact = next(a for a in opened.manifest.artifacts if a.precision == "fp32")
    model = whole_caption(opened, artifact, beams=1).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    captioner = Captioner(bundle, artifact="onnx-fp32")
    for picture in tiny.pixels(3):
        (ids,) = session.run(["ids"], {"image": picture})
        assert list(ids) == [token.id for token in captioner(picture, beams=1).tokens]


def test_fewer_tokens_of_a_pruned_student(tiny: Any, pruned: Checkpoint) -> None:
    other = with_tokens(pruned.student, 5)
    assert other.dimensions.pruned == WIDTHS
    assert tiny.begin(tiny.eager(other), tiny.pixels(2))["cross_keys"].shape == (2, 2, 5, 12)


def test_the_bench_feeds_what_the_graph_takes(bundle: Path) -> None:
    opened = Bundle(bundle)
    setup = Setup(opened, opened.manifest.artifacts[0], 1, [draw_photo(64, 64)])
    graph, feeds = setup.graph(STEP, 3)
    (logits,) = open_session(graph, 1).run(["logits"], feeds)
    assert np.isfinite(logits).all()


def test_operations_are_those_that_are_left(tiny: Any) -> None:
    """Counted in the graph: each hidden channel of an MLP saves its row and its column."""

    def multiply_adds(student: Student) -> int:
        example = Sizes.of(student.dimensions).decoder_example(2, 3)
        graph = DecoderGraph(student)
        model = trace(graph, example, DECODER_AXES)
        feeds = dict(zip(graph.inputs, (each.numpy() for each in example), strict=True))
        return count(model.SerializeToString(), feeds).multiply_adds

    whole = tiny.dimensions.whole
    fewer = replace(tiny.dimensions, pruned=replace(whole, decoder_mlp=(64 - 5, 64 - 11)))
    rows, width = 2 * 3, 32
    saved = multiply_adds(tiny.student()) - multiply_adds(tiny.student_of(fewer))
    assert saved == rows * 2 * width * (5 + 11)


def test_core_ml_takes_it_as_it_is(pruned: Checkpoint, tiny: Any, tmp_path: Path) -> None:
    """Run by the interpreter; macOS runs the program."""
    pytest.importorskip("coremltools")
    from .coreml.interpreter import Interpreter

    pixels = tiny.pixels(4)
    probe = pruned.probe(pixels, SearchDefaults())
    (made,) = load_exporter("coreml").export(
        pruned.student, ["fp32"], Job(probe, pruned.search(), pixels)
    )
    packages = write_packages(made.artifact, made.files, tmp_path)
    engine = CoreMLEngine(*map(Interpreter, packages), made.artifact.state)
    eager = EagerEngine(pruned.student, pruned.search())
    parity = compare(eager, engine, probe, beams=made.artifact.beams[0])
    check_exact(parity, "fp32")
    assert parity.max_logit_difference < 1e-4


def test_where_one_width_is_expected_it_is_refused(
    pruned: Checkpoint, tiny: Any, tmp_path: Path
) -> None:
    pixels = tiny.pixels(2)
    job = Job(pruned.probe(pixels, SearchDefaults()), pruned.search(), pixels)
    pytest.importorskip("executorch")
    with pytest.raises(ConversionError) as caught:
        load_exporter("executorch").export(pruned.student, ["fp32"], job)
    assert str(caught.value) == "executorch takes no pruned student; choose onnx or coreml"
    pytest.importorskip("transformers")
    from nanocap.convert.huggingface.folder import build_folder

    with pytest.raises(ConversionError) as caught:
        build_folder(pruned, tmp_path / "folder")
    assert str(caught.value) == (
        "checkpoint: a pruned student is no GPT-2; write a bundle with --to onnx"
    )


def test_what_magnitude_left_is_exact_too(tiny: Any) -> None:
    student = prune_by_magnitude(tiny.student(), 0.5)
    checkpoint = Checkpoint(student, tiny.tokenizer_json(), tiny.training)
    pixels = tiny.pixels(4)
    probe = checkpoint.probe(pixels, SearchDefaults())
    job = Job(probe, checkpoint.search(), pixels)
    (made,) = load_exporter("onnx").export(student, ["fp32"], job)
    parity = compare(tiny.eager(student), tiny.engine(made), probe)
    check_exact(parity, "fp32")
    assert parity.max_logit_difference < 1e-4
