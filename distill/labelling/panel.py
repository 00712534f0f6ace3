"""A panel: the teachers that propose captions, and whatever else is asked about a photo."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL import Image

from nanocap.distill.labelling.adaptation import Eyes, adapt
from nanocap.distill.labelling.decision import Decision
from nanocap.distill.labelling.evidence import Detector, LineUp
from nanocap.distill.labelling.fusion import fuse
from nanocap.distill.labelling.photos import PhotoShards
from nanocap.distill.labelling.plan import Options, Task, claim, make_plan
from nanocap.distill.labelling.proposals import agree
from nanocap.distill.labelling.quality import grade, rank, verify
from nanocap.distill.teachers import KeyedTeacher, Teacher, load_teacher
from nanocap.distill.teachers.ensemble import Pool
from nanocap.distill.teachers.settings import DEFAULTS, Settings
from nanocap.errors import OptionError
from nanocap.student.devices import use_threads


@dataclass(frozen=True)
class Panel:
    """Who speaks about photos."""

    teachers: Sequence[Teacher | KeyedTeacher]
    line_up: LineUp | None = None
    detector: Detector | None = None
    eyes: Eyes | None = None
    settings: Mapping[str, str] = field(default_factory=dict)  # that decide what teachers say

    @property
    def members(self) -> tuple[Teacher | KeyedTeacher, ...]:
        """The teachers one by one: whose captions a pool would mix keep their origin here."""
        return tuple(
            member
            for teacher in self.teachers
            for member in (teacher.members if isinstance(teacher, Pool) else (teacher,))
        )

    def claim(self, task: Task) -> None:
        """Make the task's folder that of this panel. Raises DataError if it is another's."""
        plan = make_plan(self.members, task.photos, task.options, self.settings, self._files())
        claim(task.out, plan)

    def judge(
        self, decisions: Sequence[Decision], images: Sequence[Image.Image], most: int, clock: Clock
    ) -> list[Decision]:
        """All stages behind the teachers: from proposals to what a row keeps, `most` captions."""
        judged = list(decisions)
        if self.detector is not None:
            with clock("detect"):
                sights = self.detector.look(images)
            judged = [replace(one, sight=sight) for one, sight in zip(judged, sights, strict=True)]
        with clock("fuse"):
            judged = [agree(fuse(agree(one))) for one in judged]
        if self.line_up is not None:
            with clock("match"):
                judged = self.line_up.match(judged, images)
        with clock("verify"):
            judged = [verify(one) for one in judged]
        with clock("rank"):
            judged = [one if one.left_out else grade(rank(one), most) for one in judged]
        if self.eyes is not None:
            with clock("adapt"):
                judged = adapt(judged, images, self.eyes)
        return judged

    def _files(self) -> list[Path]:
        found = [self.line_up.path] if self.line_up else []
        found += [self.detector.path, self.detector.labels] if self.detector else []
        return found + ([self.eyes.path] if self.eyes else [])


class Clock:
    """Seconds by name; a thread has its own."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - start

    def add(self, seconds: Mapping[str, float]) -> None:
        """Take over what another clock measured."""
        for name, value in seconds.items():
            self.seconds[name] += value


@dataclass(frozen=True)
class Order:
    """What to label, with what, and where to.

    Raises:
        OptionError: a detector comes without its labels, or they without it.
    """

    teachers: tuple[str, ...]  # `KIND:REST` each
    images: tuple[str, ...]  # globs of shards
    out: Path
    options: Options = field(default_factory=Options)
    settings: Settings = DEFAULTS
    scorer: Path | None = None  # a checkpoint
    detector: Path | None = None  # an ONNX file, with its labels
    detector_labels: Path | None = None
    adapt: Path | None = None  # a checkpoint
    threads: int | None = None  # that a process computes with; None: one a core

    def __post_init__(self) -> None:
        if (self.detector is None) != (self.detector_labels is None):
            raise OptionError("--detector and --detector-labels belong together")

    def task(self) -> Task:
        """The photos and their folder. Raises DataError, as `PhotoShards` does."""
        keys = (key.strip() for key in self.options.original.split(","))
        photos = PhotoShards(self.images, [key for key in keys if key])
        return Task(photos, self.out, self.options)

    def panel(self, photos: PhotoShards) -> Panel:
        """Who speaks about the photos, loaded: NanocapError for what is not there or not that."""
        use_threads(self.threads)
        detector = None
        if self.detector is not None and self.detector_labels is not None:
            detector = Detector(self.detector, self.detector_labels, self.threads)
        teachers = [load_teacher(teacher, self.settings) for teacher in self.teachers]
        for teacher in teachers:
            if isinstance(teacher, KeyedTeacher):
                teacher.expect(photos.paths, photos.folders)
        return Panel(
            teachers,
            LineUp.load(self.scorer) if self.scorer is not None else None,
            detector,
            Eyes.load(self.adapt, photos) if self.adapt is not None else None,
            {"dtype": self.settings.dtype},
        )
