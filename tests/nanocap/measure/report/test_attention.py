"""Attention by meaning: it is that of the student, spread over the photo, and it sums to one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from nanocap.bundle import Bundle, default_bundle
from nanocap.bundle.manifest import Artifact, Controls, Golden, Manifest, SearchDefaults, TokenIds
from nanocap.bundle.vocabulary import Presentation, Vocabulary
from nanocap.bundle.writer import write_bundle
from nanocap.convert.graphs.joining import SearchGraphs
from nanocap.convert.graphs.modules import (
    DECODER_AXES,
    DecoderGraph,
    EncoderGraph,
    Sizes,
    state_tensors,
)
from nanocap.convert.graphs.tracing import trace
from nanocap.image.rule import ImageRule
from nanocap.measure.report.attention import Attention
from nanocap.measure.report.probes import NoAttention
from nanocap.runtime.captioner import Captioner
from nanocap.student import Student, merging
from nanocap.student import encoder as encoder_module
from nanocap.student.layers import split_heads
from nanocap.student.search import Search

IDS = [20, 31, 12, 45, 60]
PREFIX = [3, 6]
SIDE = 4  # 64 pixels at stride 16


def build(students: ModuleType, student: Student, folder: Path) -> Bundle:
    """The student's two graphs as a bundle, fp32."""
    dimensions, sizes = student.dimensions, Sizes.of(student.dimensions)
    data = students.tokenizer_json().encode()
    vocabulary = Vocabulary.from_tokenizer(data, dimensions.vocabulary)
    never = vocabulary.special - {1}
    search = Search(dimensions.vocabulary, dimensions.max_tokens - 1, 1, 0, never).eval()
    graphs = SearchGraphs.trace(sizes, search)
    encoder = trace(EncoderGraph(student), sizes.encoder_example(2))
    decoder = trace(DecoderGraph(student), sizes.decoder_example(2, 3), DECODER_AXES)
    files = {
        "b.onnx": graphs.begin(encoder).SerializeToString(),
        "s.onnx": graphs.step(decoder).SerializeToString(),
        "golden.png": b"",
    }
    manifest = Manifest(
        name="tiny",
        version="1.0.0",
        dimensions={**dimensions.to_dict(), "layers": dimensions.decoder_layers},
        image=ImageRule(size=dimensions.image_size),
        tokens=TokenIds(pad=0, end=1, unknown=2),
        controls=Controls(
            quality={"high": 3, "medium": 4, "low": 5}, length={"any": 6, "short": 7, "long": 8}
        ),
        vocabulary=vocabulary,
        presentation=Presentation(),
        search=SearchDefaults(),
        artifacts=(
            Artifact(
                *("onnx-fp32", "onnx", "fp32", dimensions.visual_tokens),
                files={"begin": "b.onnx", "step": "s.onnx"},
                state=state_tensors(sizes, search),
            ),
        ),
        golden=Golden("golden.png", "onnx-fp32", "?"),
    )
    return Bundle(write_bundle(folder / "bundle", manifest, files))


@pytest.fixture(scope="module", params=["merge", "none"])
def student(request: pytest.FixtureRequest, tiny_students: ModuleType) -> Student:
    return tiny_students.tiny_student(request.param)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def attention(
    student: Student, tiny_students: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Attention:
    bundle = build(tiny_students, student, tmp_path_factory.mktemp("tiny"))
    return Attention(bundle, "onnx-fp32")


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    coarse = np.random.default_rng(4).integers(0, 256, (5, 5, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC))


def torch_maps(student: Student, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The same from the student's modules: softmaxes by hand, assignments where they are made."""
    spread = torch.eye(SIDE * SIDE)

    def recorded(assignment: Any, x: Any, size: Any) -> Any:
        nonlocal spread
        weight = assignment * size.transpose(1, 2) / (assignment @ size)
        spread = weight[0] @ spread
        return merging.apply_assignment(assignment, x, size)

    monkeypatch.setattr(encoder_module, "apply_assignment", recorded)
    weights = []
    decoder = student.decoder

    def softmax_of(index: int) -> Any:
        def hook(_: Any, __: Any, query: torch.Tensor) -> None:
            heads = student.dimensions.heads
            q = split_heads(query, heads)
            k = split_heads(keys[index], heads)
            scores = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5
            weights.append(scores.softmax(3).mean(1)[0])  # [T, N]

        return hook

    with torch.no_grad():
        normal = (torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() - 127) / 128
        memory = decoder.cross(student.encoder(normal))
        keys = memory.keys
        hooks = [
            layer.cross_query.register_forward_hook(softmax_of(index))
            for index, layer in enumerate(decoder.layers)
        ]
        decoder(torch.tensor([[[*PREFIX, *IDS]]]), memory)
    for hook in hooks:
        hook.remove()
    mean = torch.stack(weights).mean(0)[len(PREFIX) - 1 : -1]
    return (mean @ spread).reshape(-1, SIDE, SIDE).numpy(), mean.numpy()


def test_it_is_the_students_own(
    student: Student, attention: Attention, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps = attention.maps(photo, IDS)
    assert maps.shape == (len(IDS), SIDE, SIDE)
    expected, direct = torch_maps(student, photo, monkeypatch)
    np.testing.assert_allclose(maps, expected, atol=1e-3)
    if student.dimensions.reducer == "none":  # a token a place: the softmax itself
        np.testing.assert_allclose(maps.reshape(len(IDS), -1), direct, atol=1e-3)
    # the tolerance means something: places and words differ by more
    assert maps.reshape(len(IDS), -1).std(axis=1).min() > 3e-3
    assert np.abs(maps[0] - maps[1]).max() > 3e-3


def test_each_map_is_a_share_of_the_photo(attention: Attention, photo: np.ndarray) -> None:
    maps = attention.maps(photo, IDS)
    assert maps.min() >= 0
    np.testing.assert_allclose(maps.sum(axis=(1, 2)), 1, atol=1e-5)
    np.testing.assert_array_equal(attention.maps(photo, IDS[:2]), maps[:2])
    assert attention.maps(photo, []).shape == (0, SIDE, SIDE)
    assert np.abs(attention.maps(photo, IDS, "long") - maps).max() > 1e-4


def test_the_shipped_int8_files_tell() -> None:
    captioner = Captioner()
    attention = Attention(Bundle(default_bundle()), captioner.artifact.name)
    photo = Path(__file__).parents[4] / "samples" / "photos" / "cat.jpg"
    maps = attention.maps(photo, [token.id for token in captioner(str(photo)).tokens])
    assert maps.shape[1:] == (14, 14)
    np.testing.assert_allclose(maps.sum(axis=(1, 2)), 1, atol=1e-4)
    assert maps.min() >= 0
    assert np.abs(maps[1] - maps[-1]).max() > 5e-3  # each word has a map of its own


def test_graphs_without_such_tensors_say_so(tiny_bundle: Path) -> None:
    with pytest.raises(NoAttention, match="artifact onnx-fp32: its decoder has 0 softmaxes over 4"):
        Attention(Bundle(tiny_bundle), "onnx-fp32")


def test_other_backends_say_so(tiny_bundle: Path) -> None:
    bundle = Bundle(tiny_bundle)
    artifact = replace(bundle.manifest.artifacts[0], backend="executorch")
    bundle.manifest = replace(bundle.manifest, artifacts=(artifact,))
    with pytest.raises(NoAttention, match="only ONNX graphs tell, not executorch"):
        Attention(bundle, "onnx-fp32")


def test_a_decoder_whose_layers_do_not_all_tell(tiny_students: ModuleType, tmp_path: Path) -> None:
    bundle = build(tiny_students, tiny_students.tiny_student(), tmp_path)
    model = onnx.load(bundle.source / "s.onnx")
    last = [node for node in model.graph.node if node.op_type == "Softmax"][-1]
    last.op_type = "Identity"
    del last.attribute[:]
    files = {path: bundle.read(path) for path in bundle.manifest.files}
    files["s.onnx"] = model.SerializeToString()
    altered = write_bundle(tmp_path / "altered", bundle.manifest, files)
    with pytest.raises(NoAttention, match="1 softmaxes over 4 tokens, not one for each of its 2"):
        Attention(Bundle(altered), "onnx-fp32")
