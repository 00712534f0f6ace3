"""A scorer to two ONNX graphs, for photo search and reranking on the device.

`image.onnx`: `pixels` uint8 [B, S, S, 3] to `vector` [B, D]. `text.onnx`: `tokens` and `mask`
int64 [B, T] to `vector` [B, D]. Vectors have length 1; their product is the score. Weights are
int8, one scale an output channel, and become float where they are used; activations stay float, so
that no photos are needed and a vector does not depend on its neighbours in a batch.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor

from nanocap.convert.errors import ConversionError
from nanocap.convert.graphs.modules import Graph
from nanocap.convert.graphs.passes import output_axis
from nanocap.convert.graphs.sessions import open_session
from nanocap.convert.graphs.tracing import trace
from nanocap.convert.photos import drawn_pictures
from nanocap.errors import NanocapError, OptionError
from nanocap.scorer import Scorer
from nanocap.student.trunk import PIXEL_MEAN, PIXEL_STD

LARGEST_BYTES = 15_000_000  # of both graphs and the tokenizer
PRECISIONS = ("int8", "fp32")
EXACT = 1e-4  # how far an fp32 vector may be from eager's, in its largest component
ALIKE = 0.95  # the least cosine of an int8 vector with eager's
SMALLEST = 1024  # numbers; smaller tensors stay float
PROBES = 4  # photos, and texts, that are compared
AXES = {
    "pixels": {0: "batch"},
    "tokens": {0: "batch", 1: "pieces"},
    "mask": {0: "batch", 1: "pieces"},
    "vector": {0: "batch"},
}

Feeds = dict[str, npt.NDArray[Any]]


class ImageGraph(Graph):
    """`pixels` uint8 [B, S, S, 3] to `vector` [B, D]."""

    inputs = ("pixels",)
    outputs = ("vector",)

    def __init__(self, scorer: Scorer) -> None:
        super().__init__()
        self.tower = scorer.image

    def forward(self, pixels: Tensor) -> Tensor:
        x_BCHW = (pixels.permute(0, 3, 1, 2).float() - PIXEL_MEAN) / PIXEL_STD
        return self.tower(x_BCHW).whole


class TextGraph(Graph):
    """`tokens` and `mask` int64 [B, T] to `vector` [B, D]."""

    inputs = ("tokens", "mask")
    outputs = ("vector",)

    def __init__(self, scorer: Scorer) -> None:
        super().__init__()
        self.tower = scorer.text

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.tower(tokens, mask).whole


@dataclass(frozen=True)
class ExportedScorer:
    """What was written.

    Attributes:
        files: by name.
        bytes: of all of them together.
        likeness: by graph, the least cosine of a vector with eager's over the probes.
    """

    files: dict[str, bytes]
    bytes: int
    likeness: dict[str, float]


def export_scorer(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    precision: str = "int8",
    pixels: npt.NDArray[np.uint8] | None = None,
    overwrite: bool = False,
) -> ExportedScorer:
    """Write the folder `out`: `image.onnx`, `text.onnx`, `tokenizer.json`, `scorer.json`.

    Both graphs are loaded, run and compared with eager before anything is written.

    Args:
        checkpoint: `scorer.safetensors` of a run.
        precision: `int8` (weights) or `fp32`.
        pixels: photos to compare on, uint8 [photos, size, size, 3]; default: drawn pictures.
        overwrite: replace files that are there.

    Raises:
        ConversionError: torch cannot export a tower, a graph disagrees with it, or the files are
            larger than 15 MB together.
        OptionError: `out` already exists, or the precision is unknown.
        NanocapError: the checkpoint is missing, damaged, or has no tokenizer.
    """
    if precision not in PRECISIONS:
        known = ", ".join(PRECISIONS)
        raise OptionError(f"unknown precision {precision!r} of a scorer; known are {known}")
    folder = Path(out)
    if folder.exists() and not overwrite:
        raise OptionError(f"{out}: already exists; choose another name or allow overwriting")
    scorer, metadata = Scorer.load(Path(checkpoint))
    if "tokenizer" not in metadata:
        raise NanocapError(f"{checkpoint}: has no tokenizer: give the scorer.safetensors of a run")
    size = scorer.dimensions.student.image_size
    if pixels is None:
        pixels = drawn_pictures(PROBES, size)
    tokens, mask = _drawn_texts(scorer)
    towers: list[tuple[str, ImageGraph | TextGraph, Feeds]] = [
        ("image", ImageGraph(scorer), {"pixels": pixels}),
        ("text", TextGraph(scorer), {"tokens": tokens, "mask": mask}),
    ]
    files = {"tokenizer.json": metadata["tokenizer"].encode()}
    alike = {}
    for name, module, feeds in towers:
        graph = trace(module, _example(module, feeds), AXES)
        if precision == "int8":
            graph = round_weights(graph)
        graph.producer_name, graph.producer_version = "nanocap", ""
        onnx.checker.check_model(graph)
        files[f"{name}.onnx"] = graph.SerializeToString()
        alike[name] = _compare(module, files[f"{name}.onnx"], feeds, name, precision)
    about = {
        "precision": precision,
        "image_size": size,
        "embedding": scorer.dimensions.embedding,
        "max_pieces": scorer.dimensions.max_pieces,
        "likeness": alike,
        "training": json.loads(metadata.get("training", "{}")),
    }
    files["scorer.json"] = (json.dumps(about, indent=2) + "\n").encode()
    total = sum(map(len, files.values()))
    if precision == "int8" and total > LARGEST_BYTES:
        raise ConversionError(
            f"{checkpoint}: {total / 1e6:.1f} MB as int8, above {LARGEST_BYTES / 1e6:g} MB; train"
            " one with fewer layers or a smaller student"
        )
    _write(folder, files)
    return ExportedScorer(files, total, alike)


def _example(module: ImageGraph | TextGraph, feeds: Feeds) -> list[Tensor]:
    """Two rows, shorter than the longest: lengths at their limits would be taken for fixed."""
    some = [feeds[name][:2] for name in module.inputs]
    if isinstance(module, TextGraph):
        some = [rows[:, : max(2, rows.shape[1] // 2)] for rows in some]
    return [torch.from_numpy(rows.copy()) for rows in some]


def round_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Hold every large float tensor as int8 with one scale an output channel; in place.

    The channels of a convolution are its first axis, those of a product's matrix its last, those
    of a table its rows.
    """
    graph = model.graph
    axes = {}
    for node in graph.node:
        for place, name in enumerate(node.input):
            if node.op_type == "Conv" or (node.op_type == "Gather" and place == 0):
                axes[name] = 0
            elif node.op_type == "Gemm" and place == 1:
                axes[name] = output_axis(node)
            elif node.op_type == "MatMul" and place == 1:
                axes[name] = -1
    nodes = []
    for tensor in list(graph.initializer):
        whole = tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1
        values = numpy_helper.to_array(tensor)
        if tensor.name not in axes or not whole or values.size < SMALLEST:
            continue
        if np.isin(values, (0, 1)).all():  # the reducers count with these: they must stay exact
            continue
        axis = axes[tensor.name] % values.ndim
        others = tuple(i for i in range(values.ndim) if i != axis)
        scale = np.maximum(np.abs(values).max(others), 1e-12) / 127
        shape = [-1 if i == axis else 1 for i in range(values.ndim)]
        rounded = np.rint(values / scale.reshape(shape)).astype(np.int8)
        name = tensor.name
        graph.initializer.remove(tensor)
        graph.initializer.append(numpy_helper.from_array(rounded, f"{name}_int8"))
        graph.initializer.append(numpy_helper.from_array(scale.astype(np.float32), f"{name}_scale"))
        inputs = [f"{name}_int8", f"{name}_scale"]
        nodes.append(helper.make_node("DequantizeLinear", inputs, [name], f"{name}_dq", axis=axis))
    before = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *before])
    return model


def _drawn_texts(scorer: Scorer) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows of chance pieces, each of another length, padded."""
    random = np.random.default_rng(0)
    longest = scorer.dimensions.max_pieces
    tokens = random.integers(0, scorer.dimensions.student.vocabulary, (PROBES, longest))
    lengths = np.linspace(1, longest, PROBES).astype(int)
    mask = (np.arange(longest) < lengths[:, None]).astype(np.int64)
    return tokens.astype(np.int64) * mask, mask


def _compare(
    module: ImageGraph | TextGraph, graph: bytes, feeds: Feeds, name: str, precision: str
) -> float:
    """The least cosine with eager, of all probes at once and of the first one alone."""
    session = open_session(graph)
    least = 1.0
    for count in (len(feeds[module.inputs[0]]), 1):
        some = {key: value[:count] for key, value in feeds.items()}
        with torch.no_grad():
            theirs = module(*(torch.from_numpy(some[key]) for key in module.inputs)).numpy()
        (ours,) = session.run(["vector"], some)
        if not np.isfinite(ours).all():
            raise ConversionError(f"scorer {name}: the graph gives values that are not finite")
        worst = float(np.abs(ours - theirs).max())
        if precision == "fp32" and worst > EXACT:
            raise ConversionError(f"scorer {name}: differs from eager by {worst:.2g}")
        least = min(least, float((ours * theirs).sum(1).min()))
    if least < ALIKE:
        raise ConversionError(
            f"scorer {name}: a vector has cosine {least:.3f} with eager's, below {ALIKE:g}; export"
            " it as fp32"
        )
    return round(least, 5)


def _write(folder: Path, files: dict[str, bytes]) -> None:
    """The folder with all files, or none: what stands there already is replaced file by file."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as partial:
        for name, data in files.items():
            (Path(partial) / name).write_bytes(data)
        folder.mkdir(exist_ok=True)
        for name in files:
            (Path(partial) / name).replace(folder / name)
