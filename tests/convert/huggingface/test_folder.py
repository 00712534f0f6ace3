"""A folder for transformers captions there as the runtime does, in transformers 4.57 and 5."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoTokenizer

import nanocap.interop
from nanocap.bundle.manifest import SearchDefaults
from nanocap.bundle.vocabulary import Presentation
from nanocap.cli import group
from nanocap.convert.checkpoint import Checkpoint
from nanocap.convert.errors import ConversionError
from nanocap.convert.graphs.sessions import open_session
from nanocap.convert.huggingface.check import check_graphs, check_transformers
from nanocap.convert.huggingface.folder import build_folder
from nanocap.errors import ImageError, OptionError
from nanocap.image.image import load_image

# Renamed in transformers 5
AutoModel = getattr(transformers, "AutoModelForVision2Seq", None)
AutoModel = AutoModel or transformers.AutoModelForImageTextToText


def test_transformers_says_what_the_runtime_says(
    folder: Path, photos: list[Path], captions: list[str]
) -> None:
    model = AutoModel.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert isinstance(model.encoder, nanocap.interop.NanocapEncoder)
    assert isinstance(processor, nanocap.interop.NanocapImageProcessor)
    together = model.generate(**processor(photos, return_tensors="pt"))
    apart = [model.generate(**processor(photo, return_tensors="pt"))[0] for photo in photos]
    for found in (together, apart):
        texts = tokenizer.batch_decode(found, skip_special_tokens=True)
        assert [Presentation().sentence(text.strip()) for text in texts] == captions


def test_beams_find_what_is_at_least_as_likely(folder: Path, photos: list[Path]) -> None:
    model = AutoModel.from_pretrained(folder)
    inputs = AutoImageProcessor.from_pretrained(folder)(photos[:2], return_tensors="pt")
    options = {"return_dict_in_generate": True, "output_scores": True, "length_penalty": 0.0}
    wide = model.generate(**inputs, num_beams=4, **options)
    greedy = model.generate(**inputs)
    scores = model.compute_transition_scores(
        wide.sequences, wide.scores, wide.beam_indices, normalize_logits=False
    ).sum(1)
    logits = model(**inputs, decoder_input_ids=greedy[:, :-1]).logits.log_softmax(2)
    pieces = logits.gather(2, greedy[:, 1:, None])[:, 1:, 0]  # but the forced one
    counted = greedy[:, 2:] != model.generation_config.pad_token_id
    assert (scores >= (pieces * counted).sum(1) - 1e-3).all()


def test_a_length_is_asked_for_by_its_control_token(
    folder: Path, photos: list[Path], checkpoint: Checkpoint
) -> None:
    model = AutoModel.from_pretrained(folder)
    inputs = AutoImageProcessor.from_pretrained(folder)(photos[:1], return_tensors="pt")
    controls = checkpoint.controls()
    for token in controls.length.values():
        row = model.generate(**inputs, forced_bos_token_id=token)[0].tolist()
        assert row[:2] == [controls.quality["high"], token]
        assert not set(row[2:]) & {*controls.length.values(), *controls.quality.values()}


def test_the_image_processor_gives_the_pixels_of_the_runtime(folder: Path, tmp_path: Path) -> None:
    processor = AutoImageProcessor.from_pretrained(folder)
    rule = checkpoint_rule(folder)
    picture = Image.fromarray(np.random.default_rng(2).integers(0, 255, (90, 70, 4), np.uint8))
    picture.save(tmp_path / "clear.png")
    for source in (picture, tmp_path / "clear.png", str(tmp_path / "clear.png")):
        (pixels,) = processor(source, return_tensors="np")["pixel_values"]
        assert pixels.dtype == np.float32
        assert np.array_equal(pixels.transpose(1, 2, 0), load_image(picture, rule))


def checkpoint_rule(folder: Path) -> Any:
    from nanocap.image.rule import ImageRule

    size = json.loads((folder / "config.json").read_text())["encoder"]["dimensions"]["image_size"]
    return ImageRule(size=size)


def test_pixels_of_another_size_are_refused(folder: Path) -> None:
    model = AutoModel.from_pretrained(folder)
    with pytest.raises(ImageError, match="use its image processor"):
        model.generate(torch.zeros(1, 3, 48, 48))


def test_what_transformers_saves_is_the_same_model(
    folder: Path, tmp_path: Path, photos: list[Path]
) -> None:
    model = AutoModel.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder)
    for part in (model, processor, AutoTokenizer.from_pretrained(folder)):
        part.save_pretrained(tmp_path / "saved")  # what push_to_hub uploads
    again = AutoModel.from_pretrained(tmp_path / "saved")
    inputs = processor(photos, return_tensors="pt")
    same = AutoImageProcessor.from_pretrained(tmp_path / "saved")(photos, return_tensors="pt")
    assert torch.equal(inputs["pixel_values"], same["pixel_values"])
    assert torch.equal(model.generate(**inputs), again.generate(**same))


def test_the_encoder_graph_takes_photos_of_any_size(folder: Path, photos: list[Path]) -> None:
    session = open_session((folder / "onnx" / "encoder_model.onnx").read_bytes())
    rule = checkpoint_rule(folder)
    small = load_image(photos[0], rule)
    twice = small.repeat(2, 0).repeat(3, 1)  # flat blocks, which shrink to what they were
    for pixels in (small, twice):
        inputs = pixels.transpose(2, 0, 1)[None].astype(np.float32)
        (hidden,) = session.run(None, {"pixel_values": inputs})
        assert hidden.shape[0] == 1
        assert np.isfinite(hidden).all()


def test_the_folder_tells_how_it_is_used_and_made_from_what(folder: Path) -> None:
    card = (folder / "README.md").read_text(encoding="utf-8")
    for text in ("library_name: transformers", "import nanocap.interop", "pipeline(", "## Limits"):
        assert text in card
    assert "licence" in card
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {"onnx/encoder_model.onnx", "onnx/decoder_model_merged.onnx"} <= files
    assert not any(path.name.startswith(".") for path in folder.parent.iterdir())


def test_weights_that_caption_otherwise_are_refused(
    folder: Path, tmp_path: Path, checkpoint: Checkpoint, photos: list[Path]
) -> None:
    pixels = np.stack([load_image(photo, checkpoint.rule()) for photo in photos[:3]])
    probe = checkpoint.probe(pixels, SearchDefaults())
    out = shutil.copytree(folder, tmp_path / "out")
    weights = load_file(folder / "model.safetensors")
    name = "decoder.transformer.h.0.crossattention.c_attn.weight"
    turned = {**weights, name: weights[name].flip(1)}
    save_file(turned, out / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConversionError, match="transformers captions a photo with"):
        check_transformers(out, checkpoint, probe)
    del weights[name]
    save_file(weights, out / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConversionError, match="does not load the weights whole"):
        check_transformers(out, checkpoint, probe)
    names = ("encoder_model", "decoder_model_merged")
    graphs = [(out / "onnx" / f"{name}.onnx").read_bytes() for name in names]
    check_graphs(*graphs, checkpoint, probe)
    student = copy.deepcopy(checkpoint.student)
    student.decoder.positions.data.neg_()
    other = Checkpoint(student, checkpoint.tokenizer, checkpoint.training)
    with pytest.raises(ConversionError, match="onnx captions a photo with"):
        check_graphs(*graphs, other, probe)


def test_only_folders_of_its_own_are_replaced(folder: Path, tmp_path: Path, tiny: Any) -> None:
    with pytest.raises(OptionError, match="already exists"):
        build_folder(tiny.checkpoint(), folder)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(OptionError, match="no folder of nanocap for transformers"):
        build_folder(tiny.checkpoint(), tmp_path, overwrite=True)


def test_a_tokenizer_of_another_kind_is_refused(tmp_path: Path, tiny: Any) -> None:
    tokenizer = json.dumps({**json.loads(tiny.tokenizer_json()), "decoder": {"type": "ByteLevel"}})
    checkpoint = Checkpoint(tiny.student(), tokenizer, {})
    with pytest.raises(ConversionError, match="does not mark words by Metaspace"):
        build_folder(checkpoint, tmp_path / "out", probe_photos=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow  # a conversion of its own
def test_the_command_writes_the_folder(tmp_path: Path, checkpoint_file: Path) -> None:
    out = tmp_path / "out"
    arguments = ["convert", str(checkpoint_file), "--out", str(out), "--to", "transformers"]
    done = CliRunner().invoke(group, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["folder"] == str(out)
    assert result["bytes"] == sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    for wrong, message in (
        (["--to", "onnx"], "convert to it alone"),
        (["--precision", "fp32"], "takes no --precision"),
        (["--beams", "3"], "takes no --beams"),
    ):
        refused = CliRunner().invoke(group, [*arguments, "--force", *wrong])
        assert (refused.exit_code, refused.stdout) == (2, "")
        assert message in refused.stderr.strip().splitlines()[-1]


def test_without_transformers_the_extra_is_named() -> None:
    code = "import sys; sys.modules['transformers'] = None; import nanocap.interop"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'nanocap[transformers]'" in done.stderr.strip().splitlines()[-1]
