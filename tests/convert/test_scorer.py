"""The scorer's two graphs compute what eager computes, and weigh little."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from tokenizers import Tokenizer
from torch import nn

from nanocap.convert import scorer as exporter
from nanocap.convert.errors import ConversionError
from nanocap.convert.graphs.sessions import open_session
from nanocap.convert.scorer import export_scorer, round_weights
from nanocap.distill.data.scorer_texts import self_contained
from nanocap.distill.scorer import ImageTextScorer
from nanocap.errors import NanocapError, OptionError
from nanocap.scorer import Scorer, ScorerDimensions

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def checkpoint(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random scorer in which every weight matters."""
    torch.manual_seed(1)
    scorer = Scorer(
        ScorerDimensions(
            student=tiny.dimensions, width=32, heads=2, max_pieces=9, embedding=24, matching=8
        )
    )
    scorer.start_from(tiny.student())
    with torch.no_grad():
        for module in (scorer.text, scorer.image.pool):
            for layer in module.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
        nn.init.normal_(scorer.text.embedding.weight, std=0.5)
        scorer.text.positions.normal_(std=0.3)
        scorer.text.pool.seed.normal_()
        scorer.image.pool.seed.normal_()
    path = tmp_path_factory.mktemp("scorer") / "scorer.safetensors"
    tokenizer = self_contained(Tokenizer.from_str(tiny.tokenizer_json()), 9).to_str()
    scorer.save(path, {"tokenizer": tokenizer, "training": '{"recipe": "tiny"}'})
    return path


@pytest.fixture(scope="module")
def exported(checkpoint: Path) -> dict[str, Path]:
    folders = {}
    for precision in ("fp32", "int8"):
        folders[precision] = checkpoint.parent / precision
        export_scorer(checkpoint, folders[precision], precision=precision)
    return folders


def texts() -> tuple[np.ndarray, np.ndarray]:
    tokens = np.random.default_rng(3).integers(9, 72, (3, 6))
    mask = np.array([[1] * 6, [1] * 4 + [0] * 2, [1] + [0] * 5])
    return tokens, mask


@pytest.mark.parametrize(("precision", "least"), [("fp32", 1 - 1e-6), ("int8", 0.97)])
def test_both_graphs_equal_eager(
    exported: dict[str, Path], checkpoint: Path, tiny: Any, precision: str, least: float
) -> None:
    scorer, _ = Scorer.load(checkpoint)
    pixels, (tokens, mask) = tiny.pixels(3, seed=4), texts()
    with torch.no_grad():
        seen = exporter.ImageGraph(scorer)(torch.from_numpy(pixels)).numpy()
        read = scorer.text(torch.from_numpy(tokens), torch.from_numpy(mask)).whole.numpy()
    folder = exported[precision]
    image = open_session((folder / "image.onnx").read_bytes())
    text = open_session((folder / "text.onnx").read_bytes())
    feeds = {"tokens": tokens, "mask": mask}
    for ours, theirs in (
        (image.run(None, {"pixels": pixels})[0], seen),
        (text.run(None, feeds)[0], read),
    ):
        assert ours.shape == (3, 24)
        assert ours.dtype == np.float32
        assert (ours * theirs).sum(1).min() > least
        assert (theirs @ theirs.T)[0, 1] < 0.999  # they tell their inputs apart
    alone = text.run(None, {"tokens": tokens[2:, :1], "mask": mask[2:, :1]})[0]
    np.testing.assert_allclose(alone[0], text.run(None, feeds)[0][2], rtol=0, atol=1e-5)


def test_the_sample_sorts_photos_as_eager_does(exported: dict[str, Path], checkpoint: Path) -> None:
    photos = sorted(str(path) for path in (ROOT / "samples" / "photos").glob("*.jpg"))
    text = "A circle, and a square's side!"
    sample = [ROOT / "samples" / "search_photos.py", exported["fp32"], text]
    answer = subprocess.check_output([sys.executable, *sample, *photos], text=True)
    scores = {path: float(score) for score, path in map(str.split, answer.splitlines())}
    assert list(scores) == sorted(photos, key=lambda path: -scores[path])
    theirs = ImageTextScorer.load(checkpoint).score(photos, [text])[:, 0]
    assert [scores[path] for path in photos] == pytest.approx(theirs.tolist(), abs=2e-3)
    assert max(theirs) - min(theirs) > 1e-2


def test_int8_is_a_quarter_and_nearly_all_of_it_is_bytes(exported: dict[str, Path]) -> None:
    for name in ("image.onnx", "text.onnx"):
        graph = onnx.load(exported["int8"] / name).graph
        left = [
            t.name
            for t in graph.initializer
            if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) > 1 and np.prod(t.dims) >= 5000
        ]
        assert left == []
    sizes = [(exported[p] / "image.onnx").stat().st_size for p in ("fp32", "int8")]
    assert sizes[1] < 0.32 * sizes[0]
    about = json.loads((exported["int8"] / "scorer.json").read_text())
    assert (about["precision"], about["image_size"], about["embedding"]) == ("int8", 64, 24)
    assert about["training"] == {"recipe": "tiny"}


def test_rounded_weights_are_off_by_half_a_step_at_most() -> None:
    weight = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
    weight[:, 3] *= 100  # a channel of its own scale does not coarsen the others
    table = onnx.numpy_helper.from_array(weight, "w")
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [value("x", onnx.TensorProto.FLOAT, ["n", 64])],
        [value("y", onnx.TensorProto.FLOAT, ["n", 32])],
        [table],
    )
    opset = [onnx.helper.make_opsetid("", 20)]
    model = round_weights(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9))
    session = open_session(model.SerializeToString())
    found = session.run(None, {"x": np.eye(64, dtype=np.float32)})[0]
    step = np.abs(weight).max(0) / 127
    assert (np.abs(found - weight) <= step / 2 * 1.001).all()


def test_what_is_too_large_or_unknown_is_refused(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OptionError, match="unknown precision 'int4'"):
        export_scorer(checkpoint, tmp_path / "out", precision="int4")
    with pytest.raises(OptionError, match="already exists"):
        export_scorer(checkpoint, tmp_path)
    with pytest.raises(NanocapError, match="no such scorer"):
        export_scorer(tmp_path / "none.safetensors", tmp_path / "out")
    monkeypatch.setattr(exporter, "LARGEST_BYTES", 1000)
    with pytest.raises(ConversionError, match="MB as int8, above"):
        export_scorer(checkpoint, tmp_path / "out")
    assert not (tmp_path / "out").exists()
