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
from nanocap.convert.probe import forced
from nanocap.errors import EngineError, MissingExtraError, OptionError
from nanocap.runtime.engines import Engine, load_engine
from nanocap.runtime.engines.coreml import PARTS, ROLES, CoreMLEngine, write_packages
from nanocap.runtime.engines.state import State
from nanocap.runtime.search import NONE, Options, Searcher
from nanocap.student import Dimensions
from nanocap.student.layers import NEVER
from nanocap.student.reducers import REDUCERS
from nanocap.student.search import Search

from ..conftest import TINY
from .interpreter import Interpreter

pytestmark = pytest.mark.slow  # lowering and converting take a minute

BEAMS = SearchDefaults.beams
HALF = 0.05  # of a logit: what rounding every value to fp16 may do to a tiny student's
CROSS = ("cross_keys", "cross_values")
FED = (3, 6, 40, 11)  # quality, length and two pieces
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
        return CoreMLEngine(*map(Interpreter, packages), exported.artifact.state)

    return opened


def calibrate(tiny: Any, photos: Path) -> Moments:
    """The moments that `both` was made with."""
    checkpoint = tiny.checkpoint()
    pixels = load_photos(find_photos([photos]), 8, checkpoint.rule())
    return input_moments(checkpoint.student, checkpoint.search(), tiny.probe(pixels[:1]), pixels)


def search_of(tiny: Any) -> Search:
    return tiny.checkpoint().search()


def tiny_eager(tiny: Any) -> EagerEngine:
    return EagerEngine(tiny.student(), search_of(tiny))


def packages_of(exported: Exported) -> list[dict[str, bytes]]:
    paths = exported.artifact.files
    return [
        {inside: exported.files[paths[f"{role}{part}"]] for part, inside in PARTS.items()}
        for role in ROLES
    ]


def test_fp32_computes_what_eager_does(made: Any, tiny: Any, open_package: Opener) -> None:
    engine, probe = open_package(made["fp32"]), tiny.probe(tiny.pixels(6))
    parity = compare(tiny_eager(tiny), engine, probe, beams=BEAMS)
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
    eager, engine = EagerEngine(student, search_of(tiny)), open_package(made[precision])
    pixels = tiny.pixels(4)
    probe = tiny.probe(pixels)
    theirs, ours = (probe.begin(each, pixels, BEAMS) for each in (eager, engine))
    # in the encoder a rounding may decide otherwise which tokens merge, hence the mean
    assert 0 < max(np.abs(ours[name] - theirs[name]).mean() for name in CROSS) < HALF
    ours |= {name: theirs[name] for name in CROSS}
    for token in FED:
        tokens = np.full((4, BEAMS), token)
        theirs, ours = forced(eager, theirs, tokens), forced(engine, ours, tokens)
        assert 0 < np.abs(ours["logits"] - theirs["logits"]).max() < HALF


def test_fewer_bits_are_further_from_the_student(made: Any) -> None:
    def far(precision: str) -> float:
        measured = made[precision].artifact.measured["parity_of_weights"]
        return float(measured["mean_logit_difference"])

    assert 0 < far("fp16") < 0.2 * far("pal4")
    assert "parity_of_weights" not in made["fp32"].artifact.measured


def test_a_step_equals_eager_for_any_batch(made: Any, tiny: Any, open_package: Opener) -> None:
    """All of the state, from any caches: 1e30, for what cannot be, included."""
    engine, eager = open_package(made["fp32"]), tiny_eager(tiny)
    pixels = tiny.pixels(2)
    probe = tiny.probe(pixels)
    ours, theirs = (probe.begin(each, pixels, BEAMS) for each in (engine, eager))
    assert_same(ours, padded(theirs))
    random = np.random.default_rng(2)
    for _ in range(tiny.dimensions.max_tokens):
        shape = theirs["keys"].shape
        for name in ("keys", "values"):
            theirs[name] = random.standard_normal(shape).astype(np.float32)
        ours, theirs = engine.step(padded(theirs), logits=True), eager.step(theirs, logits=True)
        assert ours["logits"].shape == (2, BEAMS, 72)
        assert_same(ours, padded(theirs))


def padded(state: State) -> State:
    """A state of eager, whose caches grow, with caches of full length."""
    caches = {name: state[name] for name in ("keys", "values")}
    return state | {
        name: np.pad(cache, [(0, 0), (0, 0), (0, TINY.max_tokens - cache.shape[2]), (0, 0)])
        for name, cache in caches.items()
    }


def assert_same(ours: State, theirs: State) -> None:
    """Two states, but for what stands where there is no answer."""
    assert ours.keys() == theirs.keys()
    answers = theirs["answer_scores"] > NONE
    for name, expected in theirs.items():
        found = ours[name]
        assert found.shape == expected.shape
        if name in ("answer_ids", "answer_log_probabilities"):
            found, expected = found[answers], expected[answers]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-4, err_msg=name)


@pytest.mark.parametrize(("length", "penalty"), [("any", 1.0), ("short", 0.0), ("long", 2.5)])
def test_a_search_finds_what_others_find(
    both: Path, made: Any, tiny: Any, open_package: Opener, length: str, penalty: float
) -> None:
    """All answers of all beams, photos that are done sooner leaving the others alone."""
    checkpoint = tiny.checkpoint()
    tokens, controls = checkpoint.tokens(), checkpoint.controls()
    quality = controls.quality["high"]
    options = Options(BEAMS, penalty, quality, controls.length[length])
    bundle, pixels, longest = Bundle(both), tiny.pixels(6), tiny.dimensions.max_tokens
    onnx = bundle.manifest.artifacts[-1]
    fp32 = made["fp32"].artifact
    found, *expected = (
        Searcher(engine, artifact.state, tokens.end, tokens.pad, longest).search(pixels, options)
        for engine, artifact in (
            (open_package(made["fp32"]), fp32),
            (tiny_eager(tiny), onnx),
            (load_engine(onnx, bundle.load(onnx), 1), onnx),
        )
    )
    assert {len(one.ids) for answer in found for one in answer.hypotheses} != {0}
    for others in expected:
        for ours, theirs in zip(found, others, strict=True):
            pairs = [*zip(ours.hypotheses, theirs.hypotheses, strict=True)]
            assert all(one.ids == other.ids for one, other in pairs)
            for one, other in pairs:
                np.testing.assert_allclose(
                    one.log_probabilities, other.log_probabilities, atol=1e-4
                )


@pytest.mark.parametrize("precision", ["fp16", "pal4"])
def test_the_search_is_fp32_in_every_precision(
    made: Any, tiny: Any, open_package: Opener, precision: str
) -> None:
    engine, pixels = open_package(made[precision]), tiny.pixels(1)
    state = engine.begin(pixels, BEAMS, 3, 6, 0.7)
    assert state["penalty"] == np.float32(0.7)
    assert state["totals"].tolist() == [[0.0, *[float(np.float32(NEVER))] * (BEAMS - 1)]]
    assert (state["answer_scores"] == np.float32(NEVER)).all()
    state = engine.step(engine.step(state))
    state["totals"] += 1000.123
    state["bias"] += 0.0001
    after = engine.step(state)
    # the last digits of fp32; fp16 has steps of half a unit there
    last = after["log_probabilities"][0, 0, 1]
    totals = state["totals"][0] + np.float32(0.0001) + last  # one of them has gone on
    assert np.abs(after["totals"][0, 0] - totals).min() < 2e-4


def test_beams_come_from_where_they_should_for_any_vocabulary(tiny: Any, tmp_path: Path) -> None:
    """coremltools multiplies by the inverse instead of dividing: 61 / 61 is then below 1."""
    assert np.float32(61) * np.float32(1 / 61) < 1
    student = tiny.student_of(replace(tiny.dimensions, vocabulary=61))
    checkpoint = Checkpoint(student, tiny.tokenizer_json(61), tiny.training)
    program = ml_program(student, checkpoint.search(), "step", BEAMS, half=False)
    program.save(str(tmp_path / "step.mlpackage"))
    step, pixels = Interpreter(tmp_path / "step.mlpackage"), tiny.pixels(1)
    eager = EagerEngine(student, checkpoint.search())
    state = checkpoint.probe(pixels, SearchDefaults()).begin(eager, pixels, BEAMS)
    for _ in range(6):
        found = step.predict({**padded(state), "going": state["going"].astype(np.int32)})
        state = eager.step(state)
        np.testing.assert_array_equal(found["new_ids"], state["ids"])


def test_begin_takes_an_image_and_normalizes_it(
    made: Any, tiny: Any, open_package: Opener, tmp_path: Path
) -> None:
    rule = tiny.checkpoint().rule()
    for precision in CHOSEN:
        begin, _ = write_packages(
            made[precision].artifact, made[precision].files, tmp_path / precision
        )
        model = Interpreter(begin).model
        assert model.specificationVersion == 8  # iOS 17, macOS 14
        image, *controls = model.description.input
        assert [each.name for each in controls] == ["quality", "length", "length_penalty"]
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
    begin, step = (palette_sizes(Interpreter(package).model) for package in packages)
    assert set(step) == {16}
    assert set(begin) == {16, 256}


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
    again = package_files(ml_program(student, search_of(tiny), "step", BEAMS, half=True))
    assert again == packages_of(made["fp16"])[1]


def test_a_package_that_is_not_as_it_must_be_is_refused(made: Any, tiny: Any) -> None:
    begin, step = packages_of(made["fp16"])
    student = copy.deepcopy(tiny.student()).half().float()
    check_weights("fp16", [begin, step], student, 0, half=True)
    with pytest.raises(ConversionError, match="0 weights are palettized, not 3"):
        check_weights("fp16", [begin, step], student, 3, half=True)
    with pytest.raises(ConversionError, match=r"fp16: does not hold the weight of encoder\."):
        check_weights("fp16", [step], student, 0, half=True)
    with pytest.raises(ConversionError, match="weight of encoder"):
        check_weights("fp16", [begin, step], tiny.student(), 0, half=False)
    cut = {**step, WEIGHTS: step[WEIGHTS][:-1000]}
    with pytest.raises(ConversionError, match=r"weight\.bin holds no readable blob at"):
        check_weights("fp16", [begin, cut], student, 0, half=True)
    with pytest.raises(ConversionError, match=r"its input is .*not \{'pixels'"):
        check_package("fp16", step, {"pixels": (1, 3, 64, 64)}, {})
    with pytest.raises(ConversionError, match="cannot be parsed"):
        check_package("fp16", {**step, MODEL: b"\xff"}, {}, {})


def test_palettes_need_photos(tiny: Any) -> None:
    job = Job(tiny.probe(tiny.pixels(1)), search_of(tiny), tiny.pixels(0))
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


def test_a_captioner_searches_with_its_beams_and_no_others(
    both: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(package: str, compute_units: object) -> Interpreter:
        return Interpreter(Path(package))

    if sys.platform != "darwin":
        monkeypatch.setattr("coremltools.models.MLModel", opened)
        monkeypatch.setattr(platform, "system", lambda: "Darwin")
    captioner = Captioner(both, artifact="coreml-fp32")
    pictures = [Image.fromarray(pixels) for pixels in tiny.pixels(3)]
    said = captioner(pictures, n_best=BEAMS)
    for ours, alone, theirs in zip(
        said,
        (captioner(one, n_best=BEAMS) for one in pictures),
        Captioner(both, engine="onnx")(pictures, n_best=BEAMS),
        strict=True,
    ):
        found = [one.text for one in (ours, *ours.alternatives)]
        assert len(found) > 1
        for other in (alone, theirs):
            assert found == [one.text for one in (other, *other.alternatives)]
    for asked in (lambda: captioner(pictures[0], beams=1), lambda: next(captioner.stream("x"))):
        with pytest.raises(OptionError, match=f"beams must be at least {BEAMS}, got 1"):
            asked()


def test_budgets_share_a_step_and_every_package_is_whole(
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
        "coreml-fp32-4/begin.mlpackage",
        "coreml-fp32-4/step.mlpackage",
        "coreml-fp32-16/begin.mlpackage",
    }
    for package in packages:
        Interpreter(folder / package)  # nothing of it lies elsewhere
    for artifact in artifacts:
        student = with_tokens(tiny.student(), artifact.visual_tokens)
        engine = open_package(Exported(artifact, bundle.load(artifact)))
        eager, probe = EagerEngine(student, search_of(tiny)), tiny.probe(tiny.pixels(3))
        check_exact(compare(eager, engine, probe, beams=BEAMS), artifact.name)


def test_an_artifact_without_all_its_files_is_refused(made: Any, tmp_path: Path) -> None:
    artifact = made["fp16"].artifact
    files = {role: path for role, path in artifact.files.items() if role != "step-weights"}
    with pytest.raises(EngineError, match="coreml-fp16: has no step-weights; build the bundle"):
        write_packages(replace(artifact, files=files), made["fp16"].files, tmp_path)


def test_a_model_that_fails_is_an_engine_error(made: Any, tiny: Any, open_package: Opener) -> None:
    engine = open_package(made["fp16"])
    with pytest.raises(EngineError, match="Core ML cannot run the model"):
        engine.begin(np.zeros((1, 32, 32, 3), np.uint8), BEAMS, 3, 6, 1.0)


@pytest.mark.skipif(sys.platform != "darwin", reason="Core ML runs on macOS only")
@pytest.mark.parametrize("precision", CHOSEN)
def test_core_ml_agrees_with_the_interpreter(
    made: Any, tiny: Any, open_package: Opener, precision: str
) -> None:
    """What the interpreter leaves unproven: sums in fp16 and their order."""
    exported, probe = made[precision], tiny.probe(tiny.pixels(6))
    engine = load_engine(exported.artifact, exported.files, None)
    engines = (engine, open_package(exported))
    ours, theirs = (probe.begin(each, probe.pixels, BEAMS) for each in engines)
    for token in FED:
        tokens = np.full((6, BEAMS), token)
        ours, theirs = (
            forced(each, state, tokens) for each, state in zip(engines, (ours, theirs), strict=True)
        )
        far = np.abs(ours["logits"] - theirs["logits"]).max()
        assert far < (1e-3 if precision == "fp32" else 4 * HALF)


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
    job = Job(probe, search_of(tiny), tiny.pixels(0), beams=1)
    for exported in load_exporter("coreml").export(student, ["fp32", "fp16"], job):
        eager = EagerEngine(student, job.search)
        assert exported.artifact.beams == (1, 1)
        parity = compare(eager, open_package(exported), probe)
        if exported.artifact.precision == "fp32":
            check_exact(parity, reducer)
        assert parity.tokens_equal > 0.9


def test_at_full_size_every_precision_holds(tiny: Any, open_package: Opener) -> None:
    """The sizes of the shipped model, random weights: fp32 exact, 4 bits well below 8."""
    student, pixels = tiny.student_of(Dimensions()), drawn_pictures(12, 224)
    tokenizer = tiny.tokenizer_json(student.dimensions.vocabulary)
    checkpoint = Checkpoint(student, tokenizer, tiny.training)
    job = Job(checkpoint.probe(pixels[:3], SearchDefaults()), checkpoint.search(), pixels[3:])
    eager = EagerEngine(student, job.search)
    parities: dict[str, Parity] = {}
    sizes = {}
    for exported in load_exporter("coreml").export(student, PRECISIONS["coreml"], job):
        precision = exported.artifact.precision
        engine = open_package(exported)
        parities[precision] = compare(eager, engine, job.probe, beams=BEAMS)
        sizes[precision] = exported.artifact.measured["bytes"]
    check_exact(parities["fp32"], "fp32")
    assert parities["fp16"].tokens_equal > 0.9
    assert parities["pal8"].mean_logit_difference < parities["pal4"].mean_logit_difference
    assert sizes["pal4"] <= 0.6 * sizes["pal8"]
    assert sizes["pal8"] <= 0.55 * sizes["fp16"]
