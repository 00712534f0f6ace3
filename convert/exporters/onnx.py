"""ONNX for ONNX Runtime: `encoder.onnx` and `decoder.onnx`, in fp32 and in static int8."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import onnx
import torch
from torch.export import Dim

from nanocap.convert.calibration import Feeds
from nanocap.convert.errors import ConversionError
from nanocap.convert.exporters import Exported, Job
from nanocap.convert.graphs import AXES, DecoderGraph, EncoderGraph, Graph, Sizes
from nanocap.convert.parity import EagerEngine, Parity, check_batches, check_exact, compare
from nanocap.convert.quantize import quantize_decoder, quantize_encoder
from nanocap.convert.rollout import batches, rollout
from nanocap.convert.sessions import running_operators
from nanocap.convert.tidy import clean, drop_unused
from nanocap.manifest import Artifact
from nanocap.runtime.engines import Engine, load_engine
from nanocap.student import Student

PRECISIONS = ("fp32", "int8")
OPSET = 20  # the first with Gelu; ONNX Runtime takes it from 1.17 on
EXAMPLE_IMAGES, EXAMPLE_BEAMS = 2, 3  # no axis of length 1, which tracing would take for fixed
DECODER_PHOTOS = 32  # each gives a dozen steps: enough for the ranges of the decoder

Graphs = dict[str, onnx.ModelProto]  # by role: encoder, decoder


def export(student: Student, precisions: Sequence[str], job: Job) -> list[Exported]:
    """See `Exporter.export`."""
    if "int8" in precisions and not len(job.calibration):
        raise ConversionError("int8 is calibrated on photos; name some with --photos")
    job.report("onnx: tracing the encoder and the decoder")
    sizes = Sizes.of(student.dimensions)
    graphs = {
        "encoder": trace(EncoderGraph(student), sizes.encoder_example(EXAMPLE_IMAGES)),
        "decoder": trace(
            DecoderGraph(student), sizes.decoder_example(EXAMPLE_IMAGES, EXAMPLE_BEAMS)
        ),
    }
    job.report(f"onnx: comparing fp32 with eager on {len(job.probe.pixels)} photos")
    fp32 = _pack(student, "fp32", graphs)
    engine = _load(fp32)
    parity = compare(EagerEngine(student), engine, job.probe)
    check_exact(parity, "onnx fp32")
    check_batches(engine, job.probe, "onnx fp32")
    exported = []
    for precision in precisions:
        if precision == "fp32":
            exported.append(_measured(fp32, parity))
        elif precision == "int8":
            exported.append(_int8(student, graphs, engine, job))
        else:
            raise ConversionError(f"onnx has no precision {precision!r}; it has fp32 and int8")
    return exported


def trace(
    module: Graph, example: Sequence[torch.Tensor], axes: Mapping[str, dict[int, str]] = AXES
) -> onnx.ModelProto:
    """The module as an fp32 ONNX graph.

    Args:
        axes: of its inputs and outputs, those whose length is free: by default batch and beams.
    Raises:
        ConversionError: torch's exporter refuses it.
    """
    # DYNAMIC rather than named: rows = batch * beams is no dimension that torch.export can name
    shapes = {name: dict.fromkeys(axes.get(name, ()), Dim.DYNAMIC) for name in module.inputs}
    with _quiet(), torch.no_grad():
        try:
            exported = torch.export.export(module.eval(), tuple(example), dynamic_shapes=shapes)
            program = torch.onnx.export(
                exported,
                dynamo=True,
                optimize=True,
                input_names=list(module.inputs),
                output_names=list(module.outputs),
                opset_version=OPSET,
                verbose=False,
            )
        except Exception as error:
            kind = type(module).__name__
            raise ConversionError(f"torch cannot export {kind} to ONNX: {error}") from error
    assert program is not None
    return clean(drop_unused(program.model_proto), axes)


def _int8(student: Student, graphs: Graphs, fp32: Engine, job: Job) -> Exported:
    photos = job.calibration
    job.report(f"onnx: calibrating the encoder on {len(photos)} photos")

    def encoder_feeds() -> Iterator[Feeds]:
        yield from ({"pixels": batch} for batch in batches(photos))

    def decoder_feeds() -> Iterator[Feeds]:
        for batch in batches(photos[:: -(-len(photos) // DECODER_PHOTOS)]):
            yield from (step.feeds() for step in rollout(fp32, job.probe, batch))

    encoder = clean(quantize_encoder(graphs["encoder"], encoder_feeds, job.int8), AXES)
    job.report("onnx: calibrating the decoder on their captions")
    decoder = clean(quantize_decoder(graphs["decoder"], decoder_feeds, job.int8), AXES)
    packed = _pack(student, "int8", {"encoder": encoder, "decoder": decoder})
    _check_integer(packed)
    engine = _load(packed)
    job.report(f"onnx: comparing int8 with fp32 on {len(job.probe.pixels)} photos")
    check_batches(engine, job.probe, "onnx int8")
    return _measured(packed, compare(fp32, engine, job.probe))


def _check_integer(packed: Exported) -> None:
    """That no convolution and no product with weights runs in float after all."""
    for role, path in packed.artifact.files.items():
        running = running_operators(packed.files[path])
        left = {op: running[op] for op in ("Conv", "FusedConv", "Gemm", "FusedGemm") if running[op]}
        if left:
            raise ConversionError(f"onnx int8: {role} still runs {left} in float")


def _pack(student: Student, precision: str, graphs: Graphs) -> Exported:
    name = f"onnx-{precision}"
    paths = {role: f"{name}/{role}.onnx" for role in graphs}
    for graph in graphs.values():
        graph.producer_name, graph.producer_version = "nanocap", ""
        onnx.checker.check_model(graph)
    artifact = Artifact(name, "onnx", precision, student.dimensions.visual_tokens, paths)
    return Exported(artifact, {paths[role]: g.SerializeToString() for role, g in graphs.items()})


def _load(packed: Exported) -> Engine:
    return load_engine(packed.artifact, packed.files, None)


def _measured(packed: Exported, parity: Parity) -> Exported:
    against = "eager" if packed.artifact.precision == "fp32" else "fp32"
    measured: dict[str, Any] = {
        "bytes": sum(map(len, packed.files.values())),
        "parity": {"against": against, **parity.to_dict()},
    }
    return replace(packed, artifact=replace(packed.artifact, measured=measured))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks about torchvision and about its own internals."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
