"""A panel: the teachers that propose captions, and whatever else is asked about a photo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL import Image

from nanocap.distill.labelling.adaptation import Eyes, adapt
from nanocap.distill.labelling.clock import Clock
from nanocap.distill.labelling.decision import Decision
from nanocap.distill.labelling.detector import Detector
from nanocap.distill.labelling.evidence import LineUp
from nanocap.distill.labelling.fuse import fuse
from nanocap.distill.labelling.levels import grade
from nanocap.distill.labelling.plan import claim, make_plan
from nanocap.distill.labelling.proposals import agree
from nanocap.distill.labelling.propose import members
from nanocap.distill.labelling.quality import verify
from nanocap.distill.labelling.rank import rank
from nanocap.distill.labelling.task import Task
from nanocap.distill.teachers import KeyedTeacher, Teacher


@dataclass(frozen=True)
class Panel:
    """Who speaks about photos.

    Args:
        settings: how the teachers are run, as far as it decides what they say.
    """

    teachers: Sequence[Teacher | KeyedTeacher]
    line_up: LineUp | None = None
    detector: Detector | None = None
    eyes: Eyes | None = None
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def members(self) -> tuple[Teacher | KeyedTeacher, ...]:
        """The teachers one by one."""
        return members(self.teachers)

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
