"""A labelling as it is ordered: in names and paths, so that it can go to other processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from nanocap.distill.labelling.adapt import Eyes
from nanocap.distill.labelling.detector import Detector
from nanocap.distill.labelling.match import LineUp
from nanocap.distill.labelling.options import Options
from nanocap.distill.labelling.panel import Panel
from nanocap.distill.labelling.photos import PhotoShards
from nanocap.distill.labelling.task import Task
from nanocap.distill.teachers import DEFAULTS, KeyedTeacher, Settings, load_teacher
from nanocap.distill.training.devices import use_threads
from nanocap.errors import OptionError


@dataclass(frozen=True)
class Order:
    """What to label, with what, and where to.

    Args:
        teachers: `KIND:REST` each.
        images: globs of shards.
        scorer, adapt: checkpoints. detector: an ONNX file, which has its labels beside it.
        threads: that a process computes with; None: one a core.
    Raises:
        OptionError: a detector comes without its labels, or they without it.
    """

    teachers: tuple[str, ...]
    images: tuple[str, ...]
    out: Path
    options: Options = field(default_factory=Options)
    settings: Settings = DEFAULTS
    scorer: Path | None = None
    detector: Path | None = None
    detector_labels: Path | None = None
    adapt: Path | None = None
    threads: int | None = None

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
