"""A tiny student with a tokenizer, and what is exported from it."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image
from torch import nn

from nanocap.bundle.manifest import SearchDefaults
from nanocap.bundle.precisions import PRECISIONS
from nanocap.convert.build import build_bundle
from nanocap.convert.checkpoint import Checkpoint
from nanocap.convert.exporters import Exported, Job, load_exporter
from nanocap.convert.graphs.joining import SearchGraphs
from nanocap.convert.graphs.modules import DecoderGraph, EncoderGraph, Sizes
from nanocap.convert.graphs.passes import drop_unused
from nanocap.convert.graphs.tracing import trace
from nanocap.convert.parity import EagerEngine
from nanocap.convert.photos import drawn_pictures
from nanocap.convert.probe import Probe
from nanocap.convert.quantization.int8 import Choice, Int8Options
from nanocap.runtime.engines import Engine, load_engine
from nanocap.runtime.engines.state import State
from nanocap.student import Dimensions, Student
from nanocap.student.search import Search

SPECIAL = [
    "<pad>", "<end>", "<unk>", "<quality:high>", "<quality:medium>", "<quality:low>",
    "<length:any>", "<length:short>", "<length:long>",
]  # fmt: skip
TINY = Dimensions(
    width=32,
    heads=2,
    encoder_blocks=2,
    decoder_layers=2,
    mlp_ratio=2,
    vocabulary=72,  # no other axis of its weights is as long
    max_tokens=12,
    image_size=64,
    reducer="merge",
    keep=(8, 4),
)

#: Not searched for, which takes minutes.
MINMAX = Int8Options(Choice("minmax"), Choice("minmax"))


def tiny_student(reducer: str = "merge", seed: int = 2) -> Student:
    """A random student in which every weight and bias matters, and so does the photo."""
    keep = (16, 16) if reducer == "none" else TINY.keep
    return random_student(replace(TINY, reducer=reducer, keep=keep), seed)


def random_student(dimensions: Dimensions, seed: int = 0) -> Student:
    """The same of any size."""
    torch.manual_seed(seed)
    student = Student(dimensions)
    with torch.no_grad():
        for module in student.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
        for parameter in student.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
        nn.init.normal_(student.decoder.embedding.weight, std=0.5)
    return student.eval()


def tokenizer_json(pieces: int = TINY.vocabulary) -> str:
    """A BPE tokenizer whose text pieces are whole words."""
    words = [f"\u2581word{index}" for index in range(pieces - len(SPECIAL))]
    vocabulary = {piece: index for index, piece in enumerate([*SPECIAL, *words])}
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = [
        {"id": i, "content": piece, "special": True, **plain} for i, piece in enumerate(SPECIAL)
    ]
    model = {"type": "BPE", "vocab": vocabulary, "merges": []}
    return json.dumps({"version": "1.0", "added_tokens": added, "model": model})


TRAINING = {
    "recipe": "tiny",
    "seed": 3,
    "data": [{"name": "drawn blobs", "licence": "CC0-1.0"}],
    "weights": [{"name": "nothing", "licence": "none", "origin": "a seed | of chance"}],
}


class Tiny:
    """The tiny student and what is made from it; exports are made once a test run."""

    def __init__(self) -> None:
        self._exported: dict[str, Exported] = {}
        self._encoders: dict[str, onnx.ModelProto] = {}

    dimensions = TINY
    training = TRAINING
    minmax = MINMAX
    student = staticmethod(tiny_student)
    student_of = staticmethod(random_student)
    tokenizer_json = staticmethod(tokenizer_json)

    def checkpoint(self, reducer: str = "merge") -> Checkpoint:
        return Checkpoint(tiny_student(reducer), tokenizer_json(), TRAINING)

    def probe(self, pictures: np.ndarray) -> Probe:
        return self.checkpoint().probe(pictures, SearchDefaults())

    def search(self) -> Search:
        return self.checkpoint().search()

    @cached_property
    def search_graphs(self) -> SearchGraphs:
        """Traced once, which takes seconds."""
        return SearchGraphs.trace(Sizes.of(TINY), self.search())

    def eager(self, student: Student | None = None) -> EagerEngine:
        """A student of the tiny one's size in torch; the tiny one itself where none is given."""
        return EagerEngine(student or tiny_student(), self.search())

    def exported(self, precision: str) -> Exported:
        if not self._exported:
            probe = self.probe(self.pixels(4))
            job = Job(probe, self.search(), self.pixels(8, seed=5), MINMAX)
            traced = self.search_graphs
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(SearchGraphs, "trace", lambda *given: traced)
                exported = load_exporter("onnx").export(tiny_student(), PRECISIONS["onnx"], job)
            self._exported = {made.artifact.precision: made for made in exported}
        return self._exported[precision]

    def graph(self, precision: str, role: str) -> onnx.ModelProto:
        """`begin` or `step`, the whole file."""
        made = self.exported(precision)
        return onnx.load_from_string(made.files[made.artifact.files[role]])

    def part(self, precision: str, role: str) -> onnx.ModelProto:
        """The encoder or the decoder that is in such a file, without the search."""
        within, kind = {"encoder": ("begin", EncoderGraph), "decoder": ("step", DecoderGraph)}[role]
        model = self.graph(precision, within)
        inputs = [value for value in model.graph.input if value.name in kind.inputs]
        given = {value.name: value for value in model.graph.output}
        outputs = [
            given.get(name) or helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
            for name in kind.outputs
        ]
        for values, kept in ((model.graph.input, inputs), (model.graph.output, outputs)):
            del values[:]
            values.extend(kept)
        return drop_unused(model)

    def encoder(self, reducer: str) -> onnx.ModelProto:
        """The fp32 encoder alone."""
        if reducer not in self._encoders:
            student = tiny_student(reducer)
            example = Sizes.of(student.dimensions).encoder_example(2)
            self._encoders[reducer] = trace(EncoderGraph(student), example)
        return self._encoders[reducer]

    def engine(self, made: Exported) -> Engine:
        return load_engine(made.artifact, made.files, 1)

    def begin(self, engine: Engine, pictures: np.ndarray, beams: int = 1) -> State:
        """The state before the first step, with the default controls."""
        return self.probe(pictures).begin(engine, pictures, beams)

    def pixels(self, count: int, seed: int = 9) -> np.ndarray:
        return drawn_pictures(count, TINY.image_size, seed)

    def save(self, path: Path, **metadata: str) -> Path:
        """A checkpoint file; `metadata` replaces entries, an empty one leaves it out."""
        entries = {"tokenizer": tokenizer_json(), "training": json.dumps(TRAINING), **metadata}
        tiny_student().save(path, {key: value for key, value in entries.items() if value})
        return path


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    return Tiny()


@pytest.fixture(scope="session")
def checkpoint_file(tmp_path_factory: pytest.TempPathFactory, tiny: Tiny) -> Path:
    return tiny.save(tmp_path_factory.mktemp("run") / "student.safetensors")


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory, tiny: Tiny) -> Path:
    """Built from a student at hand: every precision, int8 first, from a folder of pictures."""
    photos = tmp_path_factory.mktemp("photos")
    for index, picture in enumerate(tiny.pixels(12, seed=5)):
        Image.fromarray(picture).save(photos / f"{index}.png")
    return build_bundle(
        tiny.checkpoint(),
        tmp_path_factory.mktemp("bundles") / "tiny",
        precisions=["int8", "fp32", "fp16", "int8-dynamic", "int4"],
        photos=[photos],
        int8=MINMAX,
        calibration_photos=8,
        golden=photos / "0.png",
        version="0.3.0",
    )
