"""Exporters turn a student into an artifact, one file a backend: to add one is to add a file.

The module `nanocap.convert.<backend>.exporter` holds `PRECISIONS` and a function

    export(student: Student, precisions: Sequence[str], job: Job) -> list[Exported]

that loads, runs and compares what it made before it returns. The runtime's engine of the same name
(`nanocap.runtime.engines`) runs it. Its line in `nanocap.bundle.precisions` names it on the command
line.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pkgutil import iter_modules
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

from nanocap import convert
from nanocap.bundle.manifest import Artifact, SearchDefaults
from nanocap.convert.errors import ConversionError
from nanocap.convert.probe import Probe
from nanocap.convert.quantization.int8 import Int8Options
from nanocap.student import Student
from nanocap.student.search import Search


@dataclass(frozen=True)
class Job:
    """What an exporter works with besides the student.

    Attributes:
        probe: photos to compare on.
        search: goes into the graphs.
        calibration: photos to calibrate int8 on, uint8 [photos, size, size, 3]; may be empty where
            no precision needs them.
        int8: how to quantize.
        ids: of tokens that are not text, by name, for a file that carries them itself.
        tokens: numbers of visual tokens to make an artifact for, each once; empty: the student's
            own, and no number in the names.
        beams: that captions are searched with, for a backend that takes no other number.
        qdq: leave int8 of ONNX in Q/DQ pairs, as execution providers other than the CPU's take it.
        report: takes a line of progress.
        count: takes how many steps of a long part are done, and of how many.
    """

    probe: Probe
    search: Search
    calibration: npt.NDArray[np.uint8]
    int8: Int8Options = field(default_factory=Int8Options)
    ids: Mapping[str, int] = field(default_factory=dict)
    tokens: tuple[int, ...] = ()
    beams: int = SearchDefaults.beams
    qdq: bool = False
    report: Callable[[str], None] = lambda line: None
    count: Callable[[int, int], None] = lambda done, total: None


@dataclass(frozen=True)
class Exported:
    """An artifact, and its files' bytes by path in the bundle.

    It is named `<backend>-<precision>`, and `-<visual tokens>` behind it where they were asked for.
    """

    artifact: Artifact
    files: Mapping[str, bytes]


class Exporter(Protocol):
    """The module `exporter` of a backend."""

    PRECISIONS: tuple[str, ...]

    def export(self, student: Student, precisions: Sequence[str], job: Job) -> list[Exported]:
        """One artifact a precision, and within it one a number of tokens, in their order.

        Raises:
            ConversionError: what was made does not agree with the student.
        """
        ...


def check_precisions(
    backend: str,
    precisions: Sequence[str],
    known: Sequence[str],
    calibrated: Collection[str],
    job: Job,
) -> None:
    """That an exporter has all of them, and photos for those of `known` that are calibrated.

    Raises:
        ConversionError: it is not so.
    """
    for precision in precisions:
        if precision not in known:
            raise ConversionError(
                f"{backend} has no precision {precision!r}; it has {', '.join(known)}"
            )
        if precision in calibrated and not len(job.calibration):
            raise ConversionError(f"{precision} is calibrated on photos; name some with --photos")


def backends() -> tuple[str, ...]:
    """The names of the backends that there are."""
    found = (
        package.name
        for folder in convert.__path__
        for package in iter_modules([folder])
        if any(m.name == "exporter" for m in iter_modules([os.path.join(folder, package.name)]))
    )
    return tuple(sorted(found))


def load_exporter(backend: str) -> Exporter:
    """The exporter of a backend.

    Raises:
        ConversionError: there is none of this name.
    """
    if backend not in backends():
        known = ", ".join(backends())
        raise ConversionError(f"unknown backend {backend!r}; known are {known}")
    return cast(Exporter, import_module(f"{convert.__name__}.{backend}.exporter"))
