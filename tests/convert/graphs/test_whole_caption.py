"""One graph from pixels to ids: it says what the runtime says."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from PIL import Image

from nanocap import Captioner
from nanocap.bundle import Bundle, default_bundle
from nanocap.cli import group
from nanocap.convert.errors import ConversionError
from nanocap.convert.graphs.whole_caption import whole_caption

PHOTOS = sorted((Path(__file__).parents[3] / "samples" / "photos").glob("*.jpg"))


def fuse(bundle: Path, out: Path, *more: str) -> Any:
    """The session of the file that the command writes."""
    result = CliRunner().invoke(group, ["fuse", str(bundle), "--out", str(out), *more])
    assert result.exit_code == 0, result.output
    return onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])


def text(session: Any, pixels: np.ndarray) -> str:
    """As a program in another language would: one call and a table."""
    pieces = json.loads(session.get_modelmeta().custom_metadata_map["pieces"])
    (ids,) = session.run(["ids"], {"image": pixels})
    return "".join(pieces[index] for index in ids).replace("\u2581", " ").strip()


def plain(caption: str) -> str:
    return caption.rstrip(".").lower()


@pytest.mark.parametrize("artifact", ["onnx-int8", "onnx-fp32", "onnx-fp16", "onnx-int4"])
@pytest.mark.parametrize("beams", [1, 4])
def test_it_says_what_the_runtime_says(
    bundle: Path, tiny: Any, tmp_path: Path, artifact: str, beams: int
) -> None:
    out, how = tmp_path / "caption.onnx", ("--artifact", artifact, "--beams", str(beams))
    session = fuse(bundle, out, *how)
    captioner = Captioner(bundle, artifact=artifact)
    said = set()
    for pixels in tiny.pixels(12):  # of the model's own size: nothing is resized
        assert text(session, pixels) == plain(captioner(pixels, beams=beams).text)
        said.add(text(session, pixels))
    assert len(said) > 1 or artifact == "onnx-int4"  # random weights have little to say


def test_the_shipped_model_captions_in_one_call(tmp_path: Path) -> None:
    session = fuse(default_bundle(), tmp_path / "caption.onnx")
    captioner = Captioner()
    size = captioner.manifest.image.size
    for path in PHOTOS:
        image = Image.open(path).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
        assert text(session, pixels) == plain(captioner(pixels).text)
        assert len(text(session, np.asarray(Image.open(path).convert("RGB"))).split()) > 3


def test_it_repeats_no_word_where_the_model_would(tmp_path: Path) -> None:
    """On stripes, which the model knows nothing of, as the runtime does."""
    session = fuse(default_bundle(), tmp_path / "caption.onnx", "--beams", "1")
    captioner = Captioner()
    size = captioner.manifest.image.size
    for width in (3, 20, 60):
        for low, high in np.random.default_rng(5).integers(0, 256, (3, 2, 3)):
            bands = np.where((np.arange(size) // width % 2)[:, None, None], low, high)
            pixels = np.broadcast_to(bands, (size, size, 3)).astype(np.uint8)
            said = text(session, pixels)
            assert said == plain(captioner(pixels, beams=1).text)
            assert all(one != other for one, other in pairwise(said.split()))


@pytest.mark.parametrize("shape", [(300, 200), (64, 64), (50, 401), (17, 9)])
def test_photos_of_any_size_are_resized_as_by_pillow(
    bundle: Path, tiny: Any, shape: tuple[int, int]
) -> None:
    """Only the resize of the graph: its pixels against those of the image rule."""
    opened = Bundle(bundle)
    model = whole_caption(opened, opened.manifest.artifacts[1])
    shape_of = ["photos", "rows", "columns", 3]
    model.graph.output.append(
        onnx.helper.make_tensor_value_info("begin/pixels", onnx.TensorProto.UINT8, shape_of)
    )
    session = onnxruntime.InferenceSession(model.SerializeToString())
    photo = np.asarray(Image.fromarray(tiny.pixels(1)[0]).resize(shape[::-1]))
    (pixels,) = session.run(["begin/pixels"], {"image": photo})
    size = opened.manifest.image.size
    theirs = Image.fromarray(photo).resize((size, size), Image.Resampling.BILINEAR)
    difference = np.abs(pixels[0].astype(int) - np.asarray(theirs).astype(int))
    assert difference.mean() < 0.1
    assert np.quantile(difference, 0.99) <= 1


def test_other_image_rules_are_refused(bundle: Path) -> None:
    opened = Bundle(bundle)
    first = opened.manifest.artifacts[0]
    with pytest.raises(ConversionError, match="its backend is coreml, not onnx"):
        whole_caption(opened, replace(first, backend="coreml"))


def test_nothing_is_overwritten_unasked(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "caption.onnx"
    out.write_text("precious")
    result = CliRunner().invoke(group, ["fuse", str(bundle), "--out", str(out)])
    assert result.exit_code != 0
    assert "already exists" in result.output
    assert out.read_text() == "precious"
    result = CliRunner().invoke(
        group, ["fuse", str(bundle), "--out", str(tmp_path / "x.onnx"), "--artifact", "onnx-int3"]
    )
    assert "the bundle has onnx-int8, onnx-fp32" in result.output
    assert not (tmp_path / "x.onnx").exists()
