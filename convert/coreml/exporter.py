"""Core ML for iOS 17 and macOS 14: `begin.mlpackage` and `step.mlpackage`.

Two packages, for several functions in one need iOS 18.

Four precisions: fp32 (the reference), fp16, and palettized weights over fp16 arithmetic: `pal8`,
and `pal4`, whose small convolutions keep 8 bits (see `palette`). The search is fp32 in each.
Conversion runs anywhere, Core ML on macOS only: elsewhere what was written is read back, its
weights are compared bit by bit, and the student is run with them.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from nanocap.bundle.manifest import Artifact, StateTensor
from nanocap.convert.coreml.check import check_package, check_weights
from nanocap.convert.coreml.moments import Moments, input_moments
from nanocap.convert.coreml.package import package_files
from nanocap.convert.coreml.palette import PALETTES, palettized
from nanocap.convert.coreml.program import Begin, compress, ml_program
from nanocap.convert.exporters import Exported, Job, check_precisions
from nanocap.convert.graphs.modules import Sizes, state_tensors
from nanocap.convert.graphs.sessions import threads
from nanocap.convert.graphs.visual_tokens import with_tokens
from nanocap.convert.parity import EagerEngine, check_exact, compare
from nanocap.runtime.engines import load_engine
from nanocap.runtime.engines.coreml import PARTS, ROLES
from nanocap.runtime.engines.onnx import NEW
from nanocap.student import Student

PRECISIONS = ("fp16", "fp32", *PALETTES)


def export(student: Student, precisions: Sequence[str], job: Job) -> list[Exported]:
    """See `Exporter.export`. One `step` a precision, whatever the number of visual tokens."""
    check_precisions("coreml", precisions, PRECISIONS, PALETTES, job)
    moments: Moments = {}
    if any(precision in PALETTES for precision in precisions):
        job.report(f"coreml: captioning {len(job.calibration)} photos to weigh the weights")
        moments = input_moments(student, job.search, job.probe, job.calibration)
    exported = []
    for precision in precisions:
        job.report(f"coreml: converting to {precision}")
        stored = _rounded(student, precision, moments)
        step = _package(stored, "step", precision, job)
        for tokens in job.tokens or (student.dimensions.visual_tokens,):
            made = _pack(with_tokens(stored, tokens), precision, step, job)
            job.report(f"{made.artifact.name}: comparing on {len(job.probe.pixels)} photos")
            exported.append(_compared(made, student, stored, job))
    return exported


def _rounded(student: Student, precision: str, moments: Moments) -> Student:
    """The student with the weights that the precision stores."""
    if precision == "fp32":
        return student
    if precision in PALETTES:
        student = palettized(student, PALETTES[precision], moments)
    return copy.deepcopy(student).half().float()


def _package(student: Student, role: str, precision: str, job: Job) -> dict[str, bytes]:
    """The files of one package, read back."""
    half = precision != "fp32"
    program = ml_program(student, job.search, role, job.beams, half=half, budgets=job.tokens)
    weights = PALETTES[precision].weights(student) if precision in PALETTES else []
    package = package_files(compress(program, weights) if weights else program)
    check_package(f"coreml {precision} {role}", package, *_shapes(student, job)[role])
    return package


def _pack(student: Student, precision: str, step: Mapping[str, bytes], job: Job) -> Exported:
    tokens = student.dimensions.visual_tokens
    name = f"coreml-{precision}" + (f"-{tokens}" if job.tokens else "")
    packages = {"begin": _package(student, "begin", precision, job), "step": step}
    palettes = len(PALETTES[precision].weights(student)) if precision in PALETTES else 0
    check_weights(name, list(packages.values()), student, palettes, half=precision != "fp32")
    paths, files = {}, {}
    for role in ROLES:
        for part, path in PARTS.items():
            paths[f"{role}{part}"] = f"{name}/{role}.mlpackage/{path}"
            files[paths[f"{role}{part}"]] = packages[role][path]
    beams, state = (job.beams, job.beams), _state(student, job)
    return Exported(Artifact(name, "coreml", precision, tokens, paths, beams, state), files)


def _state(student: Student, job: Job) -> tuple[StateTensor, ...]:
    """The state, of the two types that Core ML takes; caches have all places from the start."""
    sizes = Sizes.of(student.dimensions)
    return tuple(
        replace(tensor, type="float32" if tensor.type == "float32" else "int32")
        for tensor in state_tensors(sizes, job.search, sizes.max_tokens)
    )


def _shapes(student: Student, job: Job) -> Mapping[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Inputs and outputs of each role, for one photo."""
    axes: dict[Any, Any] = {"images": 1, "beams": job.beams, "rows": job.beams}
    tensors = _state(student, job)
    state = {t.name: tuple(axes.get(size, size) for size in t.shape) for t in tensors}
    side = student.dimensions.image_size
    given = {name: (1, 3, side, side) if name == "pixels" else (1,) for name in Begin.inputs}
    moved = {f"{NEW}{t.name}": state[t.name] for t in tensors if not t.constant}
    logits = {"logits": (1, job.beams, job.search.vocabulary)}
    return {"begin": (given, state), "step": (state, moved | logits)}


def _compared(made: Exported, student: Student, stored: Student, job: Job) -> Exported:
    """With what is known of its quality: Core ML's own figures on macOS, elsewhere the weights'."""
    artifact = made.artifact
    measured: dict[str, Any] = {"bytes": sum(map(len, made.files.values()))}
    if artifact.visual_tokens != student.dimensions.visual_tokens:
        measured["trained_tokens"] = student.dimensions.visual_tokens
    eager = EagerEngine(with_tokens(student, artifact.visual_tokens), job.search)
    if stored is not student:
        rounded = EagerEngine(with_tokens(stored, artifact.visual_tokens), job.search)
        weights = compare(eager, rounded, job.probe)
        measured["parity_of_weights"] = {"against": "eager", **weights.to_dict()}
    if sys.platform == "darwin":
        engine = load_engine(artifact, made.files, threads())
        parity = compare(eager, engine, job.probe, beams=job.beams)
        if artifact.precision == "fp32":
            check_exact(parity, artifact.name)
        measured["parity"] = {"against": "eager", **parity.to_dict()}
    else:
        measured["not_run"] = f"made on {sys.platform}, where Core ML does not run; read back"
    return replace(made, artifact=replace(artifact, measured=measured))
