"""ONNX for ONNX Runtime: `begin.onnx` and `step.onnx` in each of `convert.precisions`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from nanocap.bundle.manifest import Artifact
from nanocap.convert.errors import ConversionError
from nanocap.convert.exporters import Exported, Job, check_precisions
from nanocap.convert.graphs.joining import EXAMPLE_BEAMS, EXAMPLE_IMAGES, SearchGraphs
from nanocap.convert.graphs.modules import (
    AXES,
    DECODER_AXES,
    DecoderGraph,
    EncoderGraph,
    Sizes,
    state_tensors,
)
from nanocap.convert.graphs.passes import clean
from nanocap.convert.graphs.sessions import fused, open_session, running_operators, threads
from nanocap.convert.graphs.tracing import trace
from nanocap.convert.graphs.visual_tokens import with_tokens
from nanocap.convert.parity import EagerEngine, Parity, check_batches, check_exact, compare
from nanocap.convert.photos import spread
from nanocap.convert.probe import BATCH, batches, rollout
from nanocap.convert.quantization.calibration import Feeds
from nanocap.convert.quantization.divergence import Judge
from nanocap.convert.quantization.int8 import (
    Int8Options,
    Quantizable,
    float_layers,
    quantize_decoder,
    quantize_encoder,
)
from nanocap.convert.quantization.precisions import PRECISIONS as KINDS
from nanocap.convert.quantization.precisions import Maker, Precision
from nanocap.convert.quantization.sensitivity import Found, search
from nanocap.runtime.engines import Engine, load_engine
from nanocap.runtime.engines.onnx import OnnxEngine
from nanocap.student import Student

PRECISIONS = tuple(KINDS)
JUDGED = 32  # photos at most, a quarter of those to calibrate on, that int8 is chosen by
FEW = 16  # photos; with fewer none is held back
DECODER_PHOTOS = 32  # each gives a dozen steps: enough for the ranges of the decoder


def export(student: Student, precisions: Sequence[str], job: Job) -> list[Exported]:
    """See `Exporter.export`. One decoder a precision, whatever the number of encoders."""
    calibrated = [name for name, kind in KINDS.items() if kind.calibrated]
    check_precisions("onnx", precisions, PRECISIONS, calibrated, job)
    source = _Source.trace(student, job)
    return [
        _export(source, precision, tokens) for precision in precisions for tokens in source.encoders
    ]


@dataclass(frozen=True)
class _Source:
    """The student in fp32, which every precision is made from, and what has been made so far.

    Attributes:
        encoders: by visual tokens.
        search: what goes behind both graphs in the end.
        engines: both graphs as they are, by visual tokens.
        made: graphs by their maker and, of an encoder, its tokens: int4 has the encoder of int8.
        found: how int8 is made best of a role, where the job leaves that open.
    """

    student: Student
    job: Job
    encoders: Mapping[int, onnx.ModelProto]
    decoder: onnx.ModelProto
    search: SearchGraphs
    engines: Mapping[int, Engine]
    made: dict[tuple[Maker, int | None], onnx.ModelProto] = field(default_factory=dict)
    found: dict[str, Found] = field(default_factory=dict)

    @classmethod
    def trace(cls, student: Student, job: Job) -> _Source:
        """Traces the graphs and compares them with eager."""
        job.report("onnx: tracing the encoder and the decoder")
        students = {
            tokens: with_tokens(student, tokens)
            for tokens in job.tokens or (student.dimensions.visual_tokens,)
        }
        sizes = Sizes.of(student.dimensions)
        example = sizes.encoder_example(EXAMPLE_IMAGES)
        encoders = {tokens: trace(EncoderGraph(each), example) for tokens, each in students.items()}
        decoder = trace(
            DecoderGraph(student),
            sizes.decoder_example(EXAMPLE_IMAGES, EXAMPLE_BEAMS),
            DECODER_AXES,
        )
        search = SearchGraphs.trace(sizes, job.search)
        engines = {}
        for tokens, each in students.items():
            begin, step = search.begin(encoders[tokens]), search.step(decoder)
            sessions = (open_session(graph.SerializeToString()) for graph in (begin, step))
            engines[tokens] = OnnxEngine(*sessions)
            _exact(each, engines[tokens], job, f"onnx fp32 of {tokens} tokens")
        return cls(student, job, encoders, decoder, search, engines)

    def encoder(self, kind: Precision, tokens: int) -> onnx.ModelProto:
        """The encoder of so many tokens in a precision."""
        key = (kind.encoder, tokens)
        if key not in self.made:
            options = self.options(kind)
            feeds = partial(_encoder_feeds, self._photos(kind))
            graph = kind.encoder(self.encoders[tokens], feeds, options)
            self.made[key] = clean(graph, AXES)
        return self.made[key]

    def decoder_in(self, kind: Precision) -> onnx.ModelProto:
        """The decoder in a precision, for every budget."""
        key = (kind.decoder, None)
        if key not in self.made:
            options = self.options(kind)
            feeds = partial(self._decoder_feeds, self._photos(kind))
            graph = kind.decoder(self.decoder, feeds, options)
            self.made[key] = clean(graph, DECODER_AXES)
        return self.made[key]

    def options(self, kind: Precision) -> Int8Options:
        """The job's, with what measurement finds best where they leave it open.

        It is found at the student's own number of tokens and holds for all.
        """
        options = self.job.int8
        if kind.encoder is quantize_encoder and options.encoder is None:
            options = replace(options, encoder=self._best("encoder").choice)
        if kind.decoder is quantize_decoder and options.decoder is None:
            options = replace(options, decoder=self._best("decoder").choice)
        return options

    def pack(self, name: str, precision: str, tokens: int, *graphs: onnx.ModelProto) -> Exported:
        """The encoder and the decoder, with the search, as an artifact."""
        encoder, decoder = graphs
        made = {"begin": self.search.begin(encoder), "step": self.search.step(decoder)}
        paths = {role: f"{name}/{role}.onnx" for role in made}
        for graph in made.values():
            graph.producer_name, graph.producer_version = "nanocap", ""
            onnx.checker.check_model(graph)
        sizes = replace(Sizes.of(self.student.dimensions), visual_tokens=tokens)
        state = state_tensors(sizes, self.job.search)
        session = KINDS[precision].session
        return Exported(
            Artifact(name, "onnx", precision, tokens, paths, state=state, session=session),
            {paths[role]: graph.SerializeToString() for role, graph in made.items()},
        )

    def _best(self, role: str) -> Found:
        if role not in self.found:
            fit, judged = self._split
            self.job.report(
                f"onnx int8 {role}: choosing the calibration, evaluated on {len(judged)} photos"
            )
            if role == "encoder":
                feeds = partial(_encoder_feeds, fit)
                graph = Quantizable.encoder(self.encoders[self._tokens], feeds)
                measure = self._judge.encoder
            else:
                feeds = partial(self._decoder_feeds, fit)
                graph = Quantizable.decoder(self.decoder, feeds)
                measure = self._judge.decoder
            self.found[role] = search(graph, measure, self.job.count)
            self.job.report(f"onnx int8 {role}: {self.found[role].describe()}")
        return self.found[role]

    @cached_property
    def _judge(self) -> Judge:
        probe = replace(self.job.probe, pixels=self._split[1])
        return Judge(self.encoders[self._tokens], self.decoder, self.search, probe)

    @property
    def _tokens(self) -> int:
        """The number that choices are made at."""
        trained = self.student.dimensions.visual_tokens
        return trained if trained in self.encoders else next(iter(self.encoders))

    @property
    def _split(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """The photos to calibrate on and those to judge on; few photos serve for both."""
        photos = self.job.calibration
        if len(photos) < FEW:
            return photos, photos
        judged = spread(range(len(photos)), min(JUDGED, len(photos) // 4))
        return np.delete(photos, judged, axis=0), photos[judged]

    def _photos(self, kind: Precision) -> npt.NDArray[np.uint8]:
        if not kind.calibrated:
            return self.job.probe.pixels[:BATCH]
        return self._split[0] if self.found else self.job.calibration

    def _decoder_feeds(self, photos: npt.NDArray[np.uint8]) -> Iterator[Feeds]:
        """Greedy captions of some of the photos, in turns by each budget's engine."""
        some = photos[:: -(-len(photos) // DECODER_PHOTOS)]
        for place, engine in enumerate(self.engines.values()):
            for batch in batches(some[place :: len(self.engines)]):
                yield from (step.feeds() for step in rollout(engine, self.job.probe, batch))


def _encoder_feeds(photos: npt.NDArray[np.uint8]) -> Iterator[Feeds]:
    yield from ({"pixels": batch} for batch in batches(photos))


def _export(source: _Source, precision: str, tokens: int) -> Exported:
    kind, job = KINDS[precision], source.job
    name = f"onnx-{precision}" + (f"-{tokens}" if job.tokens else "")
    seen = f", calibrated on {len(job.calibration)} photos" if kind.calibrated else ""
    job.report(f"{name}: making the graphs{seen}")
    encoder, decoder = source.encoder(kind, tokens), source.decoder_in(kind)
    packed = source.pack(name, precision, tokens, encoder, decoder)
    if precision != "fp32":
        _check_integer(packed, kind, source.options(kind))
    if kind.fused and not job.qdq:
        ready = [
            fused(graph) if role in kind.fused else graph
            for role, graph in (("encoder", encoder), ("decoder", decoder))
        ]
        packed = source.pack(name, precision, tokens, *ready)
    measured: dict[str, Any] = {"bytes": sum(map(len, packed.files.values()))}
    if tokens != source.student.dimensions.visual_tokens:
        measured["trained_tokens"] = source.student.dimensions.visual_tokens
    engine = load_engine(packed.artifact, packed.files, threads())
    if precision == "fp32":
        parity = _exact(with_tokens(source.student, tokens), engine, job, name)
        measured["parity"] = {"against": "eager", **parity.to_dict()}
        return _measured(packed, measured)
    if kind.encoder is quantize_encoder and source.found:
        measured["int8"] = {role: found.to_dict() for role, found in source.found.items()}
    job.report(f"{name}: comparing with fp32 on {len(job.probe.pixels)} photos")
    check_batches(engine, job.probe, name, kind.batch_tolerance)
    parity = compare(source.engines[tokens], engine, job.probe)
    measured["parity"] = {"against": "fp32", **parity.to_dict()}
    if kind.emulate is not None:
        other = source.pack(name, precision, tokens, kind.emulate(encoder), kind.emulate(decoder))
        emulated = load_engine(other.artifact, other.files, threads())
        parity = compare(source.engines[tokens], emulated, job.probe)
        measured["parity_emulated"] = {"against": "fp32", **parity.to_dict()}
    return _measured(packed, measured)


def _exact(student: Student, engine: Engine, job: Job, name: str) -> Parity:
    """How far an engine in fp32 is from eager: only by rounding, alone and in batches."""
    job.report(f"{name}: comparing with eager on {len(job.probe.pixels)} photos")
    parity = compare(EagerEngine(student, job.search), engine, job.probe)
    check_exact(parity, name)
    check_batches(engine, job.probe, name)
    return parity


def _check_integer(packed: Exported, kind: Precision, options: Int8Options) -> None:
    """That nothing runs in float after all which the precision has in integers."""
    never = {"begin": kind.float_encoder, "step": kind.float_decoder}
    chosen = {"begin": options.encoder, "step": options.decoder}
    for role, path in packed.artifact.files.items():
        running = running_operators(packed.files[path])
        left = {op: running[op] for op in never[role] if running[op]}
        choice = chosen[role]
        allowed = 0
        if choice is not None and choice.floats:
            allowed = float_layers(onnx.load_from_string(packed.files[path]), never[role])
        if sum(left.values()) > allowed:
            raise ConversionError(f"{packed.artifact.name}: {role} still runs {left} in float")


def _measured(packed: Exported, measured: Mapping[str, Any]) -> Exported:
    return replace(packed, artifact=replace(packed.artifact, measured=measured))
