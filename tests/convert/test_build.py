"""A checkpoint becomes a bundle that captions, or nothing at all."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors import safe_open
from safetensors.torch import save_file

from nanocap import Captioner
from nanocap.bundle import Bundle
from nanocap.bundle.card import model_card
from nanocap.bundle.precisions import BACKENDS, PRECISIONS, every_precision, plan
from nanocap.cli import group
from nanocap.cli.convert import command as convert
from nanocap.convert.build import build_bundle, golden_caption
from nanocap.convert.errors import ConversionError
from nanocap.convert.exporters import backends, load_exporter
from nanocap.errors import NanocapError, OptionError
from nanocap.image.image import load_image
from nanocap.student import Dimensions, Student


def test_a_bundle_says_all_about_itself(bundle: Path, tiny: Any) -> None:
    manifest = Bundle(bundle).manifest
    assert (manifest.name, manifest.version) == ("tiny", "0.3.0")
    names = [f"onnx-{precision}" for precision in ("int8", "fp32", "fp16", "int8-dynamic", "int4")]
    assert [a.name for a in manifest.artifacts] == names
    assert manifest.artifacts[0].visual_tokens == 4
    assert manifest.artifacts[1].measured["parity"]["max_logit_difference"] < 1e-3
    assert manifest.image.size == 64
    assert (manifest.tokens.pad, manifest.tokens.end, manifest.tokens.unknown) == (0, 1, 2)
    assert manifest.controls.quality == {"high": 3, "medium": 4, "low": 5}
    assert manifest.controls.length == {"any": 6, "short": 7, "long": 8}
    assert manifest.sizes.layers == manifest.dimensions["decoder_layers"] == 2
    assert manifest.training["data"] == tiny.training["data"]
    assert Bundle(bundle).unlisted() == []


def test_every_artifact_captions_through_the_runtime(bundle: Path, tiny: Any) -> None:
    pictures = list(tiny.pixels(4))
    for artifact in Bundle(bundle).manifest.artifacts:
        captioner = Captioner(bundle, artifact=artifact.name, threads=1)
        captions = [caption.text for caption in captioner(pictures)]
        assert all(text.startswith("Word") and text.endswith(".") for text in captions)
        assert len(set(captions)) > 1
        assert captions == [captioner(picture).text for picture in pictures]


def test_the_golden_caption_is_what_the_runtime_says(bundle: Path, tiny: Any) -> None:
    opened = Bundle(bundle)
    golden = opened.manifest.golden
    assert golden.artifact == "onnx-int8"
    pixels = load_image(opened.read(golden.image), opened.manifest.image)
    assert np.array_equal(pixels, tiny.pixels(12, seed=5)[0])  # the photo that was given
    assert Captioner(bundle)(pixels).text == golden.caption
    assert cli("verify", str(bundle)).exit_code == 0


def test_the_card_names_data_weights_figures_and_limits(bundle: Path) -> None:
    card = (bundle / "README.md").read_text(encoding="utf-8")
    for text in (
        "# tiny 0.3.0",
        "| drawn blobs | CC0-1.0 |",
        "| a seed \\| of chance | none |",
        "Do not rely on it where a wrong caption can cause harm",
        Bundle(bundle).manifest.golden.caption,
    ):
        assert text in card


def test_the_card_names_every_run_and_all_data_behind_the_model(bundle: Path) -> None:
    manifest = Bundle(bundle).manifest
    teacher = {"recipe": "old", "seed": 9, "data": [{"name": "birds", "licence": "CC0"}]}
    first = {"recipe": "first", "steps": {"maps": 70}, "teachers": [teacher, teacher]}
    card = model_card(replace(manifest, training={**manifest.training, "start": first}), 1000)
    assert "| what this model started from | first | ? | maps 70 |" in card
    assert "| teacher 2 of first | old | 9 |" in card
    assert card.count("| birds | CC0 |") == 1
    assert "{'" not in card


def test_the_card_without_training_notes_says_so(bundle: Path) -> None:
    manifest = replace(Bundle(bundle).manifest, training={})
    assert "| not recorded | unknown |" in model_card(manifest, 1_000_000)


def test_a_bundle_that_is_there_is_not_replaced_unasked(bundle: Path, tiny: Any) -> None:
    before = (bundle / "manifest.json").read_bytes()
    with pytest.raises(OptionError, match="already exists"):
        build_bundle(tiny.checkpoint(), bundle, precisions=["fp32"])
    assert (bundle / "manifest.json").read_bytes() == before


@pytest.mark.slow
def test_force_replaces_a_bundle_that_is_there(
    tmp_path: Path, bundle: Path, checkpoint_file: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(bundle, out)
    arguments = ("convert", str(checkpoint_file), "--out", str(out), "--precision", "fp32")
    refused = cli(*arguments)
    assert refused.exit_code == 2
    assert "already exists" in refused.stderr
    assert Bundle(out).manifest == Bundle(bundle).manifest
    done = cli(*arguments, "--force")
    assert done.exit_code == 0, done.output
    assert [artifact.name for artifact in Bundle(out).manifest.artifacts] == ["onnx-fp32"]
    assert Bundle(out).unlisted() == []  # nothing of the old one is left
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_checkpoint_of_another_schema_is_named(
    tmp_path: Path, tiny: Any, checkpoint_file: Path
) -> None:
    """Of a version with other dimensions, without some tensors, or of no version of ours."""
    with safe_open(checkpoint_file, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    dimensions = json.loads(metadata["dimensions"])
    fewer = dict(list(tensors.items())[1:])
    for name, weights, about, message in (
        ("newer", tensors, {**dimensions, "experts": 4}, "unknown dimension 'experts'; known are"),
        ("other", tensors, {**dimensions, "width": "wide"}, "dimension 'width' must be of type"),
        ("fewer", fewer, dimensions, "Missing key|Error.* loading state_dict"),
        ("list", tensors, [1, 2], "its dimensions are no table"),
        ("foreign", tensors, None, "not a student's checkpoint"),
    ):
        path = tmp_path / f"{name}.safetensors"
        other = {key: value for key, value in metadata.items() if key != "dimensions"}
        if about is not None:
            other["dimensions"] = json.dumps(about)
        save_file(weights, path, other)
        with pytest.raises(ConversionError, match=message) as caught:
            build_bundle(path, tmp_path / "out", precisions=["fp32"])
        assert str(caught.value).startswith(str(path))
        assert str(caught.value).endswith("give the student.safetensors of a run")
        assert "\n" not in str(caught.value)
    assert nothing_left(tmp_path)


def test_a_teacher_of_several_trunks_is_no_student(tmp_path: Path, checkpoint_file: Path) -> None:
    _, metadata = Student.load(checkpoint_file)
    values = {**json.loads(metadata["dimensions"]), "trunk": "lite0+edgetpu"}
    path = tmp_path / "house.safetensors"
    Student(Dimensions.from_dict(values)).save(path, metadata)
    with pytest.raises(
        ConversionError, match=r"several trunks \(lite0\+edgetpu\): it is a teacher"
    ):
        build_bundle(path, tmp_path / "out", precisions=["fp32"])
    assert nothing_left(tmp_path)


def nothing_left(folder: Path) -> bool:
    return [p for p in folder.iterdir() if p.suffix != ".safetensors"] == []


def test_checkpoints_that_cannot_be_converted_are_named(tmp_path: Path, tiny: Any) -> None:
    whole = tiny.save(tmp_path / "whole.safetensors")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(whole.read_bytes()[:5000])
    bare = tiny.save(tmp_path / "bare.safetensors", tokenizer="")
    notes = tiny.save(tmp_path / "notes.safetensors", training="[1, 2]")
    other = json.loads(tiny.tokenizer_json())
    del other["added_tokens"][4], other["model"]["vocab"]["<quality:medium>"]
    mute = tiny.save(tmp_path / "mute.safetensors", tokenizer=json.dumps(other))
    large = tiny.save(tmp_path / "large.safetensors", tokenizer=tiny.tokenizer_json(200))
    for path, message in {
        damaged: "not a student's checkpoint",
        tmp_path / "gone.safetensors": "no such checkpoint",
        bare: "holds no tokenizer",
        notes: "training notes are not JSON",
        mute: "no piece <quality:medium>",
        large: "tokenizer",
    }.items():
        with pytest.raises(NanocapError, match=message) as caught:
            build_bundle(path, tmp_path / "out", precisions=["fp32"])
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert nothing_left(tmp_path)


def test_options_that_cannot_be_are_refused_before_the_work(tmp_path: Path, tiny: Any) -> None:
    out, checkpoint = tmp_path / "out", tiny.checkpoint()
    for wrong, message in (
        ({"precisions": ["int3"]}, "onnx has no precision 'int3'; it has int8, fp32, fp16, int8-"),
        ({"precisions": ["fp32", "onnx:fp32"]}, "precision fp32 of onnx is named twice"),
        ({"precisions": ["tflite:fp32"]}, "'tflite:fp32': nothing is converted to 'tflite'"),
        ({"backends": ["tflite"]}, "unknown backend 'tflite'; known are "),
        ({"backends": ["onnx", "onnx"]}, "each backend once"),
        ({"tokens": [4, 4]}, "each number of tokens once"),
    ):
        with pytest.raises(OptionError, match=message) as caught:
            build_bundle(checkpoint, out, **wrong)
        assert "\n" not in str(caught.value)
    with pytest.raises(NanocapError, match=r"gone\.jpg: there is no such file"):
        build_bundle(checkpoint, out, precisions=["fp32"], golden=tmp_path / "gone.jpg")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConversionError, match="no photos in"):
        build_bundle(checkpoint, out, photos=[tmp_path / "empty"])
    (tmp_path / "empty").rmdir()
    assert nothing_left(tmp_path)


@pytest.mark.slow
def test_a_killed_conversion_leaves_nothing(tmp_path: Path, checkpoint_file: Path) -> None:
    command = [sys.executable, "-m", "nanocap", "convert", str(checkpoint_file)]
    command += ["--out", str(tmp_path / "out"), "--precision", "fp32"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "captioning the golden image" in line:  # the last thing before it is written
                process.kill()
                break
    assert process.returncode != 0
    assert nothing_left(tmp_path)


def cli(*arguments: str) -> Result:
    return CliRunner().invoke(group, arguments)


@pytest.mark.slow
def test_the_command_reports_as_json(tmp_path: Path, checkpoint_file: Path) -> None:
    out = tmp_path / "out"
    done = cli(
        "convert", str(checkpoint_file), "--out", str(out), "--precision", "fp32", "--json",
        "--name", "small", "--beams", "2",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["bundle"] == str(out)
    assert result["bytes"] == sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    assert result["artifacts"]["onnx-fp32"]["parity"]["captions_equal"] == 1.0
    assert result["golden"] == Bundle(out).manifest.golden.caption
    assert "fp32 of 4 tokens: comparing with eager" in done.stderr
    assert Bundle(out).manifest.search.beams == 2


def test_the_command_ends_with_one_line(tmp_path: Path, checkpoint_file: Path) -> None:
    out = ("--out", str(tmp_path / "out"))
    for arguments, code, message in (
        ((str(tmp_path / "gone.safetensors"), *out), 1, "no such checkpoint"),
        ((str(checkpoint_file), "--out", str(tmp_path)), 2, "already exists"),
        ((str(checkpoint_file), *out, "--photos", "nowhere"), 1, "nowhere: no such photo"),
        ((str(checkpoint_file), *out), 1, "int8 is calibrated on photos"),
        ((str(checkpoint_file), *out, "--precision", "int3"), 2, "onnx has no precision 'int3'"),
    ):
        done = cli("convert", *arguments)
        assert done.exit_code == code, done.output
        assert message in done.stderr.strip().splitlines()[-1]
        assert "Traceback" not in done.output


def test_the_help_teaches() -> None:
    help_text = " ".join(cli("convert", "--help").stdout.split())
    for text in ("--photos", "--golden", "--record", "nanocap verify", "[default: 128"):
        assert text in help_text
    assert all(name in help_text for some in PRECISIONS.values() for name in some)
    assert all(name in help_text for name in BACKENDS)


def test_every_exporter_is_offered() -> None:
    assert set(BACKENDS) == set(backends())


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_the_command_offers_is_what_the_exporter_has(backend: str) -> None:
    assert tuple(load_exporter(backend).PRECISIONS) == PRECISIONS[backend]


def test_a_plan_gives_each_backend_its_precisions() -> None:
    assert plan(["onnx"], []) == {"onnx": ("int8",)}
    assert plan(["onnx"], ["onnx:int4", "fp32"]) == {"onnx": ("int4", "fp32")}


def test_all_is_every_precision_of_every_backend() -> None:
    assert plan(BACKENDS, every_precision(BACKENDS)) == PRECISIONS
    assert every_precision(["executorch"]) == (
        "executorch:int8",
        "executorch:fp32",
        "executorch:int4",
    )


def test_all_makes_every_precision_of_the_backends_named(
    tmp_path: Path, checkpoint_file: Path
) -> None:
    """As far as the photos that they need: the plan stands before the work begins."""
    common = ("convert", str(checkpoint_file), "--out", str(tmp_path / "out"), "--all")
    done = cli(*common, "--to", "coreml")
    assert done.exit_code == 1
    assert "pal8 is calibrated on photos" in done.stderr
    done = cli(*common, "--to", "onnx", "--precision", "fp32")
    assert done.exit_code == 2
    assert "--all makes every precision: leave --precision out" in done.stderr
    assert nothing_left(tmp_path)


def test_all_names_the_extra_that_is_missing(
    tmp_path: Path, checkpoint_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("nanocap.convert.coreml")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "coremltools", None)
    done = cli("convert", str(checkpoint_file), "--out", str(tmp_path / "out"), "--all")
    assert done.exit_code == 1, done.output
    assert "pip install 'nanocap[coreml]'" in done.stderr.strip().splitlines()[-1]
    assert nothing_left(tmp_path)


def test_the_help_needs_no_torch_and_is_quick() -> None:
    code = "import sys; sys.modules['torch'] = None; from nanocap.cli import group; "
    code += "group(['convert', '--help'], standalone_mode=False); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "int8-dynamic" in done.stdout, done.stderr
    assert not {"onnx", "nanocap.convert", "onnxruntime"}.intersection(done.stdout.split())


def test_force_is_another_word_for_overwrite() -> None:
    (option,) = (option for option in convert.params if option.name == "overwrite")
    assert option.opts == ["--overwrite", "--force"]


def test_the_same_bytes_are_stored_once(bundle: Path) -> None:
    files = {a.precision: a.files for a in Bundle(bundle).manifest.artifacts}
    assert files["int4"]["begin"] == files["int8"]["begin"] == "onnx-int8/begin.onnx"
    assert files["int4"]["step"] == "onnx-int4/step.onnx"
    assert not (bundle / "onnx-int4" / "begin.onnx").exists()


def test_an_artifact_of_elsewhere_leaves_the_golden_image_to_the_next(
    tmp_path: Path, bundle: Path
) -> None:
    """Core ML is made on Linux, where it does not run."""
    opened = Bundle(bundle)
    first = replace(opened.manifest.artifacts[0], name="far", backend="elsewhere")
    golden = replace(opened.manifest.golden, artifact="far")
    alone = replace(opened.manifest, artifacts=(first,), golden=golden)
    manifest = replace(alone, artifacts=(first, *opened.manifest.artifacts[1:]))
    files = {path: opened.read(path) for path in manifest.files}
    assert golden_caption(manifest, files).artifact == "onnx-fp32"
    with pytest.raises(ConversionError, match=r"no artifact runs on this machine .*'elsewhere'"):
        golden_caption(alone, files)
