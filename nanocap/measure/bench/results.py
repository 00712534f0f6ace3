"""What a run of the bench found, as records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nanocap.measure.bench.machine import Machine
from nanocap.measure.bench.profile import OperatorTime
from nanocap.measure.bench.roofline import Peaks, Roofline
from nanocap.measure.bench.timing import Timing

ENOUGH = 0.35  # a stage that reaches less of a limit has to say where its time goes


@dataclass(frozen=True)
class PhotoResult:
    """Decoding one photo and scaling it to the encoder's input.

    Attributes:
        name: for people.
        width, height: in pixels.
        bytes: of the file.
        timing: of the whole way from the file's bytes to the pixels.
    """

    name: str
    width: int
    height: int
    bytes: int
    timing: Timing


@dataclass(frozen=True)
class StageResult:
    """One graph at work.

    Attributes:
        name: `begin` or `step`.
        beams: of a step; 0 for `begin`.
        timing: of one photo, or of one token.
        roofline: its counts and limits; None where the artifact is no ONNX graph.
        operators: the slowest first, where the share of a limit is below `ENOUGH`.
    """

    name: str
    beams: int
    timing: Timing
    roofline: Roofline | None
    operators: tuple[OperatorTime, ...] = ()

    @property
    def is_far(self) -> bool:
        """Whether it has to say where its time goes."""
        roofline, ms = self.roofline, self.timing.p50
        return roofline is not None and min(roofline.share(ms), roofline.cached_share(ms)) < ENOUGH


@dataclass(frozen=True)
class CaptionResult:
    """Whole captions, from the bytes of a small photo to the sentence.

    Attributes:
        beams: 1 is greedy.
        timing: of one caption; the samples go round the photos.
        tokens: mean pieces of a sentence.
    """

    beams: int
    timing: Timing
    tokens: float


@dataclass(frozen=True)
class RunResult:
    """One artifact at one number of threads.

    Attributes:
        artifact: its name.
        threads: of each graph.
        load: from the bundle's path to a captioner, its files checked.
        stages: `begin`, and a step for each number of beams.
        captions: for each number of beams.
        batch: photos in a batch.
        captions_per_second: in such batches, with the bundle's beams.
        peak_bytes: of a new process that captions the largest photo; None where the system does
            not tell.
    """

    artifact: str
    threads: int
    load: Timing
    stages: tuple[StageResult, ...]
    captions: tuple[CaptionResult, ...]
    batch: int
    captions_per_second: float
    peak_bytes: int | None


@dataclass(frozen=True)
class Report:
    """All of one run.

    Attributes:
        bundle: its path.
        name, version: of the model.
        bytes: of the bundle's listed files.
        machine: where it ran.
        rounds: how often everything was measured in turns.
        photos: the largest first.
        peaks: by number of threads.
        artifact_bytes: of each artifact's own files, by name.
        runs: each artifact at each number of threads.
        failures: why an artifact was left out, by name.
    """

    bundle: str
    name: str
    version: str
    bytes: int
    machine: Machine
    rounds: int
    photos: tuple[PhotoResult, ...]
    peaks: tuple[Peaks, ...]
    artifact_bytes: Mapping[str, int]
    runs: tuple[RunResult, ...]
    failures: Mapping[str, str]
