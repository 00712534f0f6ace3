"""ExecuTorch for XNNPACK: one `.pte` with `begin`, `step`, and dimensions and ids as constants.

They take one photo, and up to `MAX_BEAMS` beams of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from nanocap.bundle.manifest import Artifact
from nanocap.convert.errors import ConversionError
from nanocap.convert.executorch.lowering import lower
from nanocap.convert.executorch.programs import MAX_BEAMS, state_of
from nanocap.convert.executorch.programs import PRECISIONS as KINDS
from nanocap.convert.exporters import Exported, Job, check_precisions
from nanocap.convert.graphs.sessions import threads
from nanocap.convert.graphs.visual_tokens import with_tokens
from nanocap.convert.parity import EagerEngine, check_batches, check_exact, compare
from nanocap.errors import NanocapError
from nanocap.runtime.engines import load_engine
from nanocap.student import Dimensions, Student

PRECISIONS = tuple(KINDS)


def export(student: Student, precisions: Sequence[str], job: Job) -> list[Exported]:
    """See `Exporter.export`."""
    calibrated = [name for name, kind in KINDS.items() if kind.calibrated]
    check_precisions("executorch", precisions, PRECISIONS, calibrated, job)
    if student.dimensions.pruned is not None:  # its graphs and its engine know one width
        raise ConversionError("executorch takes no pruned student; choose onnx or coreml")
    budgets = job.tokens or (student.dimensions.visual_tokens,)
    return [
        _export(with_tokens(student, tokens), precision, job, student.dimensions.visual_tokens)
        for precision in precisions
        for tokens in budgets
    ]


def _export(student: Student, precision: str, job: Job, trained: int) -> Exported:
    tokens = student.dimensions.visual_tokens
    name = f"executorch-{precision}" + (f"-{tokens}" if job.tokens else "")
    kind = KINDS[precision]
    seen = f", calibrated on {len(job.calibration)} photos" if kind.calibrated else ""
    job.report(f"{name}: lowering begin and step{seen}")
    try:
        programs = {
            "begin": kind.begin(student, job.search, job.calibration),
            "step": kind.step(student, job.search),
        }
    except NanocapError as error:  # a reducer that cannot keep so few tokens
        raise ConversionError(error) from None
    data, split = lower(programs, constants(student.dimensions, job.ids))
    path = f"{name}/model.pte"
    artifact = Artifact(
        name,
        "executorch",
        precision,
        tokens,
        {"model": path},
        beams=(1, MAX_BEAMS),
        state=state_of(student.dimensions, job.search),
    )
    measured: dict[str, Any] = {"bytes": len(data)}
    if tokens != trained:
        measured["trained_tokens"] = trained
    measured["delegation"] = {method: each.to_dict() for method, each in split.items()}
    job.report(f"{name}: comparing with eager on {len(job.probe.pixels)} photos")
    engine = load_engine(artifact, {path: data}, threads())
    parity = compare(EagerEngine(student, job.search), engine, job.probe)
    if precision == "fp32":
        check_exact(parity, name)
    check_batches(engine, job.probe, name)
    measured["parity"] = {"against": "eager", **parity.to_dict()}
    return Exported(replace(artifact, measured=measured), {path: data})


def constants(dimensions: Dimensions, ids: Mapping[str, int]) -> dict[str, int]:
    """What the file says of itself: a method a number, dimensions and `<name>_id`."""
    return {
        "layers": dimensions.decoder_layers,
        "heads": dimensions.heads,
        "width": dimensions.width,
        "vocabulary": dimensions.vocabulary,
        "max_tokens": dimensions.max_tokens,
        "visual_tokens": dimensions.visual_tokens,
        "image_size": dimensions.image_size,
        "max_beams": MAX_BEAMS,
        **{f"{name}_id": number for name, number in ids.items()},
    }
