"""Core ML packages, proven without Core ML: an interpreter runs what was saved.

On macOS the same comparisons run through Core ML itself.
"""

from __future__ import annotations

import copy
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nanocap import Captioner
from nanocap.bundle import Bundle
from nanocap.bundle.manifest import SearchDefaults
from nanocap.bundle.precisions import PRECISIONS
from nanocap.convert.build import build_bundle
from nanocap.convert.checkpoint import Checkpoint
from nanocap.convert.coreml.check import check_package, check_weights
from nanocap.convert.coreml.moments import Moments, input_moments
from nanocap.convert.coreml.package import MODEL, WEIGHTS, package_files
from nanocap.convert.coreml.palette import PALETTES, palettized
from nanocap.convert.coreml.program import ml_program
from nanocap.convert.errors import ConversionError
from nanocap.convert.exporters import Exported, Job, load_exporter
from nanocap.convert.graphs.visual_tokens import with_tokens
from nanocap.convert.parity import EagerEngine, Parity, check_exact, compare
from nanocap.convert.photos import drawn_pictures, find_photos, load_photos
from nanocap.errors import EngineError, MissingExtraError
from nanocap.runtime.engines import Engine, load_engine
from nanocap.runtime.engines.coreml import PARTS, ROLES, CoreMLEngine, write_packages
from nanocap.student import Dimensions
from nanocap.student.reducers import REDUCERS

from .interpreter import Interpreter

pytestmark = pytest.mark.slow  # lowering and converting take a minute

HALF = 0.05  # of a logit: what rounding every value to fp16 may do to a tiny student's
CHOSEN = ("fp32", "fp16", "pal4")  # pal8 is pal4 of other bits; a slow test has it too
Opener = Callable[[Exported], Engine]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, tiny: Any) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for index, picture in enumerate(tiny.pixels(12, seed=5)):
        Image.fromarray(picture).save(folder / f"{index:02}.png")
    return folder


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, tiny: Any, photos: Path) -> Path:
    """A bundle of the tiny student, for Core ML and for ONNX Runtime."""
    return build_bundle(
        tiny.checkpoint(),
        tmp_path_factory.mktemp("bundles") / "both",
        backends=["coreml", "onnx"],
        precisions=[*(f"coreml:{precision}" for precision in CHOSEN), "onnx:fp32"],
        photos=[photos],
        calibration_photos=8,
        probe_photos=2,
    )


@pytest.fixture(scope="module")
def made(both: Path) -> dict[str, Exported]:
    """Its artifacts for Core ML, by precision."""
    bundle = Bundle(both)
    return {
        artifact.precision: Exported(artifact, bundle.load(artifact))
        for artifact in bundle.manifest.artifacts
        if artifact.backend == "coreml"
    }


@pytest.fixture(scope="module")
def open_package(tmp_path_factory: pytest.TempPathFactory) -> Opener:
    """What runs an artifact here: the interpreter behind the runtime's own engine."""

    def opened(exported: Exported) -> CoreMLEngine:
        folder = tmp_path_factory.mktemp("packages")
        packages = write_packages(exported.artifact, exported.files, folder)
        return CoreMLEngine(*map(Interpreter, packages))

    return opened


def calibrate(tiny: Any, photos: Path) -> Moments:
    """The moments that `both` was made with."""
    checkpoint = tiny.checkpoint()
    pixels = load_photos(find_photos([photos]), 8, checkpoint.rule())
    return input_moments(checkpoint.student, tiny.probe(pixels[:1]), pixels)


def packages_of(exported: Exported) -> list[dict[str, bytes]]:
    paths = exported.artifact.files
    return [
        {inside: exported.files[paths[f"{role}{part}"]] for part, inside in PARTS.items()}
        for role in ROLES
    ]


def test_fp32_computes_what_eager_does(made: Any, tiny: Any, open_package: Opener) -> None:
    engine, probe = open_package(made["fp32"]), tiny.probe(tiny.pixels(6))
    parity = compare(EagerEngine(tiny.student()), engine, probe)
    check_exact(parity, "fp32")  # logits to 1e-3, greedy captions piece by piece
    assert parity.max_logit_difference < 1e-4


@pytest.mark.parametrize("precision", ["fp16", "pal4"])
def test_a_program_computes_with_its_weights(
    made: Any, tiny: Any, photos: Path, open_package: Opener, precision: str
) -> None:
    """As eager does with the weights that were to be stored, as far as fp16 can tell."""
    student = tiny.student()
    if precision in PALETTES:
        student = palettized(student, PALETTES[precision], calibrate(tiny, photos))
    eager, engine = EagerEngine(student), open_package(made[precision])
    pixels = tiny.pixels(4)
    cross = eager.encode(pixels)
    cache = (np.zeros((2, 4, tiny.dimensions.max_tokens, 32), np.float32),) * 2
    theirs = cache
    for position, token in enumerate([3, 6, 40, 11]):
        tokens = np.full((4, 1), token)
        logits, cache = engine.step(tokens, position, cross, cache)
        expected, theirs = eager.step(tokens, position, cross, theirs)
        assert 0 < np.abs(logits - expected).max() < HALF
    # in the encoder a rounding may decide otherwise which tokens merge, hence the mean
    differences = [np.abs(a - b).mean() for a, b in zip(engine.encode(pixels), cross, strict=True)]
    assert 0 < max(differences) < HALF


def test_fewer_bits_are_further_from_the_student(made: Any) -> None:
    def far(precision: str) -> float:
        measured = made[precision].artifact.measured["parity_of_weights"]
        return float(measured["mean_logit_difference"])

    assert 0 < far("fp16") < 0.2 * far("pal4")
    assert "parity_of_weights" not in made["fp32"].artifact.measured


def test_a_step_equals_eager_for_any_batch_and_beams(
    made: Any, tiny: Any, open_package: Opener
) -> None:
    engine, eager = open_package(made["fp32"]), EagerEngine(tiny.student())
    random = np.random.default_rng(2)
    tokens = random.integers(0, 72, (2, 3))
    cross = eager.encode(tiny.pixels(2))
    for ours, theirs in zip(engine.encode(tiny.pixels(2)), cross, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    shape = (2, 6, tiny.dimensions.max_tokens, 32)
    keys, values = (random.standard_normal(shape).astype(np.float32) for _ in range(2))
    logits, after = engine.step(tokens, 7, cross, (keys, values))
    expected, expected_after = eager.step(tokens, 7, cross, (keys, values))
    assert logits.shape == (2, 3, 72)
    for ours, theirs in zip((logits, *after), (expected, *expected_after), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_the_encoder_takes_an_image_and_normalizes_it(
    made: Any, tiny: Any, open_package: Opener, tmp_path: Path
) -> None:
    rule = tiny.checkpoint().rule()
    for precision in CHOSEN:
        encoder, _ = write_packages(
            made[precision].artifact, made[precision].files, tmp_path / precision
        )
        model = Interpreter(encoder).model
        assert model.specificationVersion == 8  # iOS 17, macOS 14
        (image,) = model.description.input
        assert (image.type.imageType.width, image.type.imageType.height) == (64, 64)
        assert image.type.imageType.ColorSpace.Name(image.type.imageType.colorSpace) == "RGB"
        program = model.mlProgram.functions["main"]
        constants, first = {}, []
        for operation in program.block_specializations[program.opset].operations:
            if operation.type == "const":
                held = operation.attributes["val"].immediateValue.tensor.floats.values
                constants[operation.outputs[0].name] = list(held)
            elif len(first) < 2:
                first.append((operation.type, constants[operation.inputs["y"].arguments[0].name]))
        scale, bias = dict(first)["mul"], dict(first)["add"]
        np.testing.assert_allclose(scale, [1 / rule.std[0]])
        np.testing.assert_allclose(bias, [-m / s for m, s in zip(rule.mean, rule.std, strict=True)])


def test_four_bits_are_sixteen_values(made: Any, tmp_path: Path) -> None:
    packages = write_packages(made["pal4"].artifact, made["pal4"].files, tmp_path)
    encoder, decoder = (palette_sizes(Interpreter(package).model) for package in packages)
    assert set(decoder) == {16}
    assert set(encoder) == {16, 256}


def palette_sizes(model: Any) -> list[int]:
    program = model.mlProgram.functions["main"]
    operations = program.block_specializations[program.opset].operations
    return [
        operation.attributes["lut"].type.tensorType.dimensions[0].constant.size
        for operation in operations
        if operation.type == "constexpr_lut_to_dense"
    ]


def test_the_same_student_gives_the_same_bytes(made: Any, tiny: Any) -> None:
    student = copy.deepcopy(tiny.student()).half().float()
    again = package_files(ml_program(student, "decoder", half=True))
    assert again == packages_of(made["fp16"])[1]


def test_a_package_that_is_not_as_it_must_be_is_refused(made: Any, tiny: Any) -> None:
    encoder, decoder = packages_of(made["fp16"])
    student = copy.deepcopy(tiny.student()).half().float()
    check_weights("fp16", [encoder, decoder], student, 0, half=True)
    with pytest.raises(ConversionError, match="0 weights are palettized, not 3"):
        check_weights("fp16", [encoder, decoder], student, 3, half=True)
    with pytest.raises(ConversionError, match=r"fp16: does not hold the weight of encoder\."):
        check_weights("fp16", [decoder], student, 0, half=True)
    with pytest.raises(ConversionError, match="weight of encoder"):
        check_weights("fp16", [encoder, decoder], tiny.student(), 0, half=False)
    cut = {**decoder, WEIGHTS: decoder[WEIGHTS][:-1000]}
    with pytest.raises(ConversionError, match=r"weight\.bin holds no readable blob at"):
        check_weights("fp16", [encoder, cut], student, 0, half=True)
    with pytest.raises(ConversionError, match=r"its input is .*not \{'pixels'"):
        check_package("fp16", decoder, {"pixels": (1, 3, 64, 64)}, {})
    with pytest.raises(ConversionError, match="cannot be parsed"):
        check_package("fp16", {**decoder, MODEL: b"\xff"}, {}, {})


def test_palettes_need_photos(tiny: Any) -> None:
    job = Job(tiny.probe(tiny.pixels(1)), tiny.pixels(0))
    with pytest.raises(ConversionError, match="pal4 is calibrated on photos; name some with"):
        load_exporter("coreml").export(tiny.student(), ["fp16", "pal4"], job)


def test_without_coremltools_the_extra_is_named() -> None:
    code = "import sys; sys.modules['coremltools'] = None\n"
    code += "from nanocap.convert.exporters import load_exporter\nload_exporter('coreml')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert "the coreml backend of nanocap.convert needs the package coremltools" in last
    assert last.endswith("run pip install 'nanocap[coreml]'")


def test_a_bundle_holds_whole_packages_with_their_hashes(both: Path) -> None:
    bundle = Bundle(both)
    assert [artifact.name for artifact in bundle.manifest.artifacts] == [
        *(f"coreml-{precision}" for precision in CHOSEN),
        "onnx-fp32",
    ]
    for artifact in bundle.manifest.artifacts[: len(CHOSEN)]:
        contents = bundle.load(artifact)
        for role in ROLES:
            package = both / artifact.name / f"{role}.mlpackage"
            for part, inside in PARTS.items():
                assert (package / inside).read_bytes() == contents[artifact.files[f"{role}{part}"]]
            Interpreter(package)  # as it lies in the bundle
    assert bundle.unlisted() == []
    here = "coreml-fp32" if sys.platform == "darwin" else "onnx-fp32"
    assert bundle.manifest.golden.artifact == here


@pytest.mark.skipif(sys.platform == "darwin", reason="Core ML runs here")
def test_elsewhere_the_engine_says_what_to_do(both: Path) -> None:
    with pytest.raises(EngineError, match=r"coreml-fp32: Core ML runs on macOS, not on .*onnx"):
        Captioner(both, engine="coreml")
    assert Captioner(both, engine="onnx").artifact.name == "onnx-fp32"


def test_budgets_share_a_decoder_and_every_package_is_whole(
    tiny: Any, tmp_path: Path, open_package: Opener
) -> None:
    folder = build_bundle(
        tiny.checkpoint(),
        tmp_path / "several",
        backends=["coreml", "onnx"],
        precisions=["fp32"],
        tokens=[4, 16],
        probe_photos=2,
    )
    bundle = Bundle(folder)
    artifacts = [one for one in bundle.manifest.artifacts if one.backend == "coreml"]
    assert [(a.name, a.visual_tokens) for a in artifacts] == [
        ("coreml-fp32-4", 4),
        ("coreml-fp32-16", 16),
    ]
    assert [a.measured.get("trained_tokens") for a in artifacts] == [None, 4]
    packages = {str(path.relative_to(folder)) for path in folder.rglob("*.mlpackage")}
    assert packages == {
        "coreml-fp32-4/encoder.mlpackage",
        "coreml-fp32-4/decoder.mlpackage",
        "coreml-fp32-16/encoder.mlpackage",
    }
    for package in packages:
        Interpreter(folder / package)  # nothing of it lies elsewhere
    for artifact in artifacts:
        student = with_tokens(tiny.student(), artifact.visual_tokens)
        engine = open_package(Exported(artifact, bundle.load(artifact)))
        check_exact(
            compare(EagerEngine(student), engine, tiny.probe(tiny.pixels(3))), artifact.name
        )


def test_an_artifact_without_all_its_files_is_refused(made: Any, tmp_path: Path) -> None:
    artifact = made["fp16"].artifact
    files = {role: path for role, path in artifact.files.items() if role != "decoder-weights"}
    with pytest.raises(EngineError, match="coreml-fp16: has no decoder-weights; build the bundle"):
        write_packages(replace(artifact, files=files), made["fp16"].files, tmp_path)


def test_a_model_that_fails_is_an_engine_error(made: Any, tiny: Any, open_package: Opener) -> None:
    engine = open_package(made["fp16"])
    with pytest.raises(EngineError, match="Core ML cannot run the model"):
        engine.encode(np.zeros((1, 32, 32, 3), np.uint8))


@pytest.mark.skipif(sys.platform != "darwin", reason="Core ML runs on macOS only")
@pytest.mark.parametrize("precision", CHOSEN)
def test_core_ml_agrees_with_the_interpreter(
    made: Any, tiny: Any, open_package: Opener, precision: str
) -> None:
    """What the interpreter leaves unproven: sums in fp16 and their order."""
    exported, probe = made[precision], tiny.probe(tiny.pixels(6))
    engine = load_engine(exported.artifact, exported.files, None)
    parity = compare(open_package(exported), engine, probe)
    assert parity.max_logit_difference < (1e-3 if precision == "fp32" else 4 * HALF)


def test_without_coremltools_the_engine_names_the_extra(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "coremltools", None)
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    with pytest.raises(MissingExtraError, match=r"engine coreml needs .*nanocap\[coreml\]"):
        load_engine(made["fp16"].artifact, made["fp16"].files, None)


@pytest.mark.parametrize("reducer", sorted(REDUCERS))
def test_every_reducer_converts(tiny: Any, open_package: Opener, reducer: str) -> None:
    student, probe = tiny.student(reducer), tiny.probe(tiny.pixels(3))
    job = Job(probe, tiny.pixels(0))
    for exported in load_exporter("coreml").export(student, ["fp32", "fp16"], job):
        parity = compare(EagerEngine(student), open_package(exported), probe)
        if exported.artifact.precision == "fp32":
            check_exact(parity, reducer)
        assert parity.tokens_equal > 0.9


def test_at_full_size_every_precision_holds(tiny: Any, open_package: Opener) -> None:
    """The sizes of the shipped model, random weights: fp32 exact, 4 bits well below 8."""
    student, pixels = tiny.student_of(Dimensions()), drawn_pictures(12, 224)
    tokenizer = tiny.tokenizer_json(student.dimensions.vocabulary)
    checkpoint = Checkpoint(student, tokenizer, tiny.training)
    job = Job(checkpoint.probe(pixels[:3], SearchDefaults()), pixels[3:])
    parities: dict[str, Parity] = {}
    sizes = {}
    for exported in load_exporter("coreml").export(student, PRECISIONS["coreml"], job):
        precision = exported.artifact.precision
        parities[precision] = compare(EagerEngine(student), open_package(exported), job.probe)
        sizes[precision] = exported.artifact.measured["bytes"]
    check_exact(parities["fp32"], "fp32")
    assert parities["fp16"].tokens_equal > 0.9
    assert parities["pal8"].mean_logit_difference < parities["pal4"].mean_logit_difference
    assert sizes["pal4"] <= 0.6 * sizes["pal8"]
    assert sizes["pal8"] <= 0.55 * sizes["fp16"]
