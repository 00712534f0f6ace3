"""Core ML for iOS 17 and macOS 14: `encoder.mlpackage` and `decoder.mlpackage`.

Four precisions: fp32 (the reference), fp16, and palettized weights over fp16 arithmetic: `pal8`, and
`pal4`, which keeps 4 bits for the transformer, 8 and 6 for the trunk (see `palette`). Conversion
runs anywhere, Core ML on macOS only: elsewhere what was written is read back and checked, not run.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from nanocap.convert.coreml.check import check_package, count_palettes
from nanocap.convert.coreml.moments import input_moments
from nanocap.convert.coreml.package import package_files
from nanocap.convert.coreml.palette import PALETTES, palettized
from nanocap.convert.coreml.program import compress, ml_program
from nanocap.convert.errors import ConversionError
from nanocap.convert.exporters import Exported, Job
from nanocap.convert.graphs import DecoderGraph, EncoderGraph, Sizes
from nanocap.convert.parity import EagerEngine, check_exact, compare
from nanocap.manifest import Artifact
from nanocap.runtime.engines import load_engine
from nanocap.runtime.engines.coreml import PARTS, ROLES
from nanocap.student import Student

PRECISIONS = ("fp16", "fp32", *PALETTES)


def export(student: Student, precisions: Sequence[str], job: Job) -> list[Exported]:
    """See `Exporter.export`."""
    unknown = [precision for precision in precisions if precision not in PRECISIONS]
    if unknown:
        raise ConversionError(
            f"coreml has no precision {unknown[0]!r}; it has {', '.join(PRECISIONS)}"
        )
    palettes = [precision for precision in precisions if precision in PALETTES]
    if palettes and not len(job.calibration):
        raise ConversionError(f"{palettes[0]} is calibrated on photos; name some with --photos")
    moments = {}
    if palettes:
        job.report(f"coreml: captioning {len(job.calibration)} photos to weigh the weights")
        moments = input_moments(student, job.probe, job.calibration)
    exported = []
    for precision in precisions:
        job.report(f"coreml: converting to {precision}")
        compressed = student
        if precision in PALETTES:
            compressed = palettized(student, PALETTES[precision], moments)
        made = _pack(compressed, precision)
        exported.append(replace(made, artifact=replace(made.artifact, measured=_measured(made))))
        if sys.platform == "darwin":
            exported[-1] = _compared(exported[-1], student, job)
    return exported


def _pack(student: Student, precision: str) -> Exported:
    name = f"coreml-{precision}"
    shapes = _shapes(student)
    paths, files, palettes = {}, {}, 0
    for role in ROLES:
        program = ml_program(student, role, half=precision != "fp32")
        package = package_files(compress(program) if precision in PALETTES else program)
        check_package(f"{name} {role}", package, *shapes[role])
        palettes += count_palettes(package)
        for part, path in PARTS.items():
            paths[f"{role}{part}"] = f"{name}/{role}.mlpackage/{path}"
            files[paths[f"{role}{part}"]] = package[path]
    expected = PALETTES[precision].count(student) if precision in PALETTES else 0
    if palettes != expected:
        raise ConversionError(f"{name}: {palettes} weights are palettized instead of {expected}")
    artifact = Artifact(name, "coreml", precision, student.dimensions.visual_tokens, paths)
    return Exported(artifact, files)


def _shapes(student: Student) -> Mapping[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Inputs and outputs of each role, one photo and one beam."""
    sizes = Sizes.of(student.dimensions)
    decoder = [tuple(value.shape) for value in sizes.decoder_example(1, 1)]
    cross, cache = decoder[2], decoder[4]
    image = (1, 3, sizes.image_size, sizes.image_size)
    logits = (1, 1, student.dimensions.vocabulary)
    return {
        "encoder": (
            dict(zip(EncoderGraph.inputs, [image], strict=True)),
            dict(zip(EncoderGraph.outputs, [cross, cross], strict=True)),
        ),
        "decoder": (
            dict(zip(DecoderGraph.inputs, decoder, strict=True)),
            dict(zip(DecoderGraph.outputs, [logits, cache, cache], strict=True)),
        ),
    }


def _measured(made: Exported) -> dict[str, Any]:
    return {
        "bytes": sum(map(len, made.files.values())),
        "unproven": f"written on {sys.platform}, where Core ML does not run: read back, not run",
    }


def _compared(made: Exported, student: Student, job: Job) -> Exported:
    """With Core ML's own figures in place of the remark that there are none."""
    what = f"coreml {made.artifact.precision}"
    job.report(f"coreml: comparing {made.artifact.precision} with eager")
    engine = load_engine(made.artifact, made.files, None)
    parity = compare(EagerEngine(student), engine, job.probe)
    if made.artifact.precision == "fp32":
        check_exact(parity, what)
    measured = {
        "bytes": made.artifact.measured["bytes"],
        "parity": {"against": "eager", **parity.to_dict()},
    }
    return replace(made, artifact=replace(made.artifact, measured=measured))
