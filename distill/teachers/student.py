"""Captioners that this project trained, one or the average of several, as a teacher."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer

from nanocap.distill.data.augment import squash
from nanocap.distill.data.feature_cache import normalize
from nanocap.distill.teachers import Scored, distinct
from nanocap.distill.teachers.rollout import beam_search, to_texts
from nanocap.distill.teachers.settings import DEFAULTS, Settings
from nanocap.errors import OptionError
from nanocap.student import Student
from nanocap.student.devices import mixed_precision

PREFIX = "student:"


@dataclass(frozen=True)
class Finished:
    """A finished student as its file holds it."""

    path: str
    student: Student
    tokenizer: str  # the JSON of it
    training: dict[str, Any]  # what the file says about how it was made


class StudentTeacher:
    """Beam search over the averaged probabilities of students that agree.

    Args:
        settings: `auto` as dtype is bf16 where this machine multiplies it, else fp32.
    """

    def __init__(self, finished: Sequence[Finished], settings: Settings = DEFAULTS):
        self.name = ",".join(one.path for one in finished)
        self.students = tuple(one.student for one in finished)
        self.tokenizer = Tokenizer.from_str(finished[0].tokenizer)
        self.training = tuple(one.training for one in finished)
        self.device = settings.on_device()
        for student in self.students:
            student.to(self.device).eval()
        if settings.dtype == "auto":
            has_bf16 = mixed_precision("auto") == "bf16"
            self._dtype = torch.bfloat16 if has_bf16 else torch.float32
        else:
            self._dtype = settings.weights_dtype(self.device)

    def caption(self, images: Sequence[Image.Image], n: int) -> list[list[Scored]]:
        """At most `n` different captions of each photo, best first."""
        size = self.students[0].dimensions.image_size
        pixels = normalize(np.stack([squash(image, size) for image in images])).to(self.device)
        narrow = self._dtype != torch.float32
        with torch.autocast(self.device.type, self._dtype if narrow else None, enabled=narrow):
            found = beam_search(self.students, pixels, n)
        answers = []
        for hypotheses in found:
            texts = to_texts(self.tokenizer, [one.ids for one in hypotheses])
            scores = (one.score for one in hypotheses)
            answers.append(distinct(zip(texts, scores, strict=True)))
        return answers


def read(path: str) -> Finished:
    """The student of a file; raises OptionError for one that is not finished, or NanocapError."""
    student, metadata = Student.load(Path(path))
    if "tokenizer" not in metadata:
        raise OptionError(f"{path}: has no tokenizer: give a finished student.safetensors")
    training = json.loads(metadata.get("training", "{}"))
    return Finished(path, student, metadata["tokenizer"], training)


def agree(finished: Sequence[Finished]) -> bool:
    """Whether they share one vocabulary and one image size, so that they can be averaged."""
    return len({(one.tokenizer, one.student.dimensions.image_size) for one in finished}) == 1


def load(rest: str, settings: Settings = DEFAULTS) -> StudentTeacher:
    """`student:CHECKPOINT`; raises as `read` does."""
    return StudentTeacher([read(rest)], settings)
