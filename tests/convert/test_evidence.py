"""A student with a concept head through conversion and runtime: its words can be copied."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from nanocap import Captioner
from nanocap.bundle import Bundle
from nanocap.bundle.manifest import SearchDefaults
from nanocap.cli import group
from nanocap.convert.build import build_bundle
from nanocap.convert.checkpoint import Checkpoint
from nanocap.convert.errors import ConversionError
from nanocap.convert.exporters import Job, load_exporter
from nanocap.convert.graphs.whole_caption import whole_caption
from nanocap.convert.parity import EagerEngine, check_exact, compare
from nanocap.measure.report.attention import Attention
from nanocap.runtime.engines.coreml import CoreMLEngine, write_packages
from nanocap.student.evidence import ConceptHead, Concepts

WORDS = (20, 31, 42, 53, 64)  # pieces of the tiny vocabulary
EVIDENCE = 3


@pytest.fixture(scope="module")
def told(tiny: Any) -> Checkpoint:
    """Whose concepts depend on the photo, and which copies eagerly."""
    dimensions = replace(tiny.dimensions, evidence=EVIDENCE, concepts=len(WORDS), words=2)
    student = tiny.student_of(dimensions)
    head = student.encoder.concepts
    assert isinstance(head, ConceptHead)
    classes = [range(n, 1000, len(WORDS)) for n in range(len(WORDS))]
    head.define(Concepts(WORDS, [tuple(numbers) for numbers in classes]))
    with torch.no_grad():
        student.decoder.copying.key.bias.mul_(3)
    return Checkpoint(student, tiny.tokenizer_json(), tiny.training)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, tiny: Any, told: Checkpoint) -> Path:
    photos = tmp_path_factory.mktemp("photos")
    for index, picture in enumerate(tiny.pixels(12, seed=5)):
        Image.fromarray(picture).save(photos / f"{index}.png")
    return build_bundle(
        told,
        tmp_path_factory.mktemp("bundles") / "told",
        precisions=["int8", "fp32"],
        photos=[photos],
        calibration_photos=8,
        golden=photos / "0.png",
    )


def test_fp32_is_exact_and_int8_is_near(bundle: Path) -> None:
    measured = {a.precision: a.measured["parity"] for a in Bundle(bundle).manifest.artifacts}
    assert measured["fp32"]["max_logit_difference"] < 1e-4
    assert measured["int8"]["mean_logit_difference"] < 0.5


def test_the_state_names_the_words_and_how_sure_they_are(
    bundle: Path, tiny: Any, told: Checkpoint
) -> None:
    state = {t.name: t for t in Bundle(bundle).manifest.artifacts[0].state}
    assert state["evidence"].shape == ("images", EVIDENCE)
    assert all(state[name].constant for name in ("evidence", "certainty", "copy_keys"))
    assert state["cross_keys"].shape[2] == tiny.dimensions.visual_tokens + EVIDENCE
    pixels = tiny.pixels(4)
    found = told.probe(pixels, SearchDefaults()).begin(
        EagerEngine(told.student, told.search()), pixels
    )
    assert set(found["evidence"].flatten()) <= set(WORDS)
    assert len({tuple(row) for row in found["evidence"].tolist()}) > 1  # they depend on the photo
    assert (np.diff(found["certainty"], axis=1) <= 0).all()


@pytest.mark.parametrize("beams", [1, 3])
def test_the_runtime_says_what_eager_says(
    bundle: Path, tiny: Any, told: Checkpoint, beams: int
) -> None:
    pixels = tiny.pixels(6)
    eager, tokens = EagerEngine(told.student, told.search()), told.tokens()
    state = told.probe(pixels, SearchDefaults()).begin(eager, pixels, beams)
    while state["going"].any():
        state = eager.step(state)
    captioner = Captioner(bundle, artifact="onnx-fp32")
    copied = 0
    for row, picture in zip(state["answer_ids"][:, 0].tolist(), pixels, strict=True):
        ids = [token for token in row if token not in (tokens.end, tokens.pad)]
        said = [token.id for token in captioner(picture, beams=beams).tokens]
        assert said == ids
        copied += bool(set(said) & set(WORDS))
    assert copied  # else nothing was tried


def test_a_caption_has_the_words_as_tags(bundle: Path, tiny: Any, told: Checkpoint) -> None:
    pixels = tiny.pixels(3)
    eager = EagerEngine(told.student, told.search())
    state = told.probe(pixels, SearchDefaults()).begin(eager, pixels)
    captions = Captioner(bundle, artifact="onnx-fp32")(list(pixels), n_best=2)
    pieces = told.vocabulary().pieces
    for caption, ids, sure in zip(captions, state["evidence"], state["certainty"], strict=True):
        assert [f"\u2581{tag.word}" for tag in caption.tags] == [pieces[i] for i in ids]
        assert [tag.probability for tag in caption.tags] == pytest.approx(np.exp(sure), abs=1e-4)
        assert not any(other.tags for other in caption.alternatives)  # they are of the image


def test_the_command_line_prints_tags(bundle: Path, tiny: Any, tmp_path: Path) -> None:
    Image.fromarray(tiny.pixels(1)[0]).save(tmp_path / "a.png")
    result = CliRunner().invoke(
        group, ["caption", "--json", "--bundle", str(bundle), str(tmp_path / "a.png")]
    )
    assert result.exit_code == 0, result.output
    tags = json.loads(result.stdout)["tags"]
    assert [*tags[0]] == ["word", "probability"]
    assert len(tags) == EVIDENCE
    assert 0 <= tags[-1]["probability"] <= tags[0]["probability"] <= 1


def test_one_graph_from_pixels_to_ids(bundle: Path, tiny: Any) -> None:
    opened = Bundle(bundle)
    artifact = next(a for a in opened.manifest.artifacts if a.precision == "fp32")
    model = whole_caption(opened, artifact).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    captioner = Captioner(bundle, artifact="onnx-fp32")
    for picture in tiny.pixels(2):
        (ids,) = session.run(["ids"], {"image": picture})
        assert list(ids) == [token.id for token in captioner(picture).tokens]


def test_attention_is_of_places_alone(bundle: Path, tiny: Any) -> None:
    attention = Attention(Bundle(bundle), "onnx-fp32")
    maps = attention.maps(tiny.pixels(1)[0], [20, 30, 31])
    assert maps.shape == (3, 4, 4)
    np.testing.assert_allclose(maps.sum((1, 2)), 1, atol=1e-4)
    assert np.abs(maps[0] - maps[1]).max() > 1e-4


def test_it_is_no_model_of_transformers(told: Checkpoint, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from nanocap.convert.huggingface.folder import build_folder

    with pytest.raises(ConversionError) as caught:
        build_folder(told, tmp_path / "folder")
    assert str(caught.value) == (
        "checkpoint: a student that copies words is no GPT-2; write a bundle with --to onnx"
    )


@pytest.mark.slow
def test_core_ml_takes_it(told: Checkpoint, tiny: Any, tmp_path: Path) -> None:
    """Run by the interpreter; macOS runs the program."""
    pytest.importorskip("coremltools")
    from .coreml.interpreter import Interpreter

    pixels = tiny.pixels(4)
    probe = told.probe(pixels, SearchDefaults())
    job = Job(probe, told.search(), pixels)
    (made,) = load_exporter("coreml").export(told.student, ["fp32"], job)
    packages = write_packages(made.artifact, made.files, tmp_path)
    engine = CoreMLEngine(*map(Interpreter, packages), made.artifact.state)
    eager = EagerEngine(told.student, told.search())
    parity = compare(eager, engine, probe, beams=made.artifact.beams[0])
    check_exact(parity, "fp32")
    assert parity.max_logit_difference < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_executorch_takes_it(told: Checkpoint, tiny: Any, precision: str) -> None:
    pytest.importorskip("executorch")
    pixels = tiny.pixels(4)
    probe = told.probe(pixels, SearchDefaults())
    job = Job(probe, told.search(), pixels)
    (made,) = load_exporter("executorch").export(told.student, [precision], job)
    engine, eager = tiny.engine(made), EagerEngine(told.student, told.search())
    parity = compare(eager, engine, probe)
    assert parity.mean_logit_difference < (0.5 if precision == "int8" else 1e-4)
    ours, theirs = (each.begin(pixels, 2, 3, 6, 1.0) for each in (engine, eager))
    if precision == "fp32":  # of random weights int8 changes the order of the words
        assert np.array_equal(ours["evidence"], theirs["evidence"])
        np.testing.assert_allclose(ours["copy_keys"], theirs["copy_keys"], atol=1e-4)
        while theirs["going"].any():
            ours, theirs = engine.step(ours), eager.step(theirs)
        assert np.array_equal(ours["answer_ids"], theirs["answer_ids"])
