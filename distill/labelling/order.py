"""A labelling as it is ordered: in names and paths, so that it can go to other processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nanocap.distill.labelling.adapt import Eyes
from nanocap.distill.labelling.detector import Detector
from nanocap.distill.labelling.engine import Evidence
from nanocap.distill.labelling.match import LineUp
from nanocap.distill.labelling.options import Options
from nanocap.distill.labelling.photos import PhotoShards
from nanocap.distill.teachers import KeyedTeacher, Teacher, load_teacher
from nanocap.distill.teachers.settings import DEFAULTS, Settings
from nanocap.errors import OptionError


@dataclass(frozen=True)
class Order:
    """What to label, with what, and where to.

    Args:
        teachers: `KIND:REST` each.
        images: globs of shards.
        scorer, adapt: checkpoints. detector: an ONNX file, which has its labels beside it.
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

    def __post_init__(self) -> None:
        if (self.detector is None) != (self.detector_labels is None):
            raise OptionError("--detector and --detector-labels belong together")

    def photos(self) -> PhotoShards:
        """The photos. Raises DataError, as `PhotoShards` does."""
        keys = (key.strip() for key in self.options.original.split(","))
        return PhotoShards(self.images, [key for key in keys if key])

    def load_teachers(self) -> list[Teacher | KeyedTeacher]:
        """The teachers. Raises what `load_teacher` does."""
        return [load_teacher(teacher, self.settings) for teacher in self.teachers]

    def evidence(self, photos: PhotoShards) -> Evidence:
        """What else is asked about a photo. Raises NanocapError for files that are not that."""
        return Evidence(
            LineUp.load(self.scorer) if self.scorer is not None else None,
            Detector(self.detector, self.detector_labels)
            if self.detector is not None and self.detector_labels is not None
            else None,
            Eyes.load(self.adapt, photos) if self.adapt is not None else None,
        )

    def identity(self) -> Mapping[str, str]:
        """Of the settings, what decides the rows."""
        return {"dtype": self.settings.dtype}
