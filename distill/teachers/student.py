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
from nanocap.distill.teachers import Scored
from nanocap.distill.teachers.settings import DEFAULTS, Settings
from nanocap.distill.training.devices import mixed_precision
from nanocap.distill.training.rollout import beam_search, to_texts
from nanocap.errors import OptionError
from nanocap.student import Student

PREFIX = "student:"


class StudentTeacher:
    """Beam search over the averaged probabilities of students that share one vocabulary.

    Args:
        training: what each student's file says about how it was made.
        settings: `auto` as dtype is bf16 where this machine multiplies it, else fp32.
    """

    def __init__(
        self,
        name: str,
        students: Sequence[Student],
        tokenizer: Tokenizer,
        training: Sequence[dict[str, Any]] = (),
        settings: Settings = DEFAULTS,
    ):
        self.name, self.students, self.tokenizer = name, tuple(students), tokenizer
        self.training = tuple(training)
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
            texts = to_texts(self.tokenizer, [list(one.ids) for one in hypotheses])
            best: dict[str, float] = {}
            for text, one in zip(texts, hypotheses, strict=True):
                if text:
                    best.setdefault(text, one.score)
            answers.append([Scored(text, score) for text, score in best.items()])
        return answers


@dataclass(frozen=True)
class Finished:
    """A finished student as its file holds it.

    Args:
        tokenizer: the JSON of it.
        training: what the file says about how it was made.
    """

    path: str
    student: Student
    tokenizer: str
    training: dict[str, Any]


def read(path: str) -> Finished:
    """The student of a file.

    Raises:
        OptionError: it is no finished student.
        NanocapError: the file is missing or damaged.
    """
    student, metadata = Student.load(Path(path))
    if "tokenizer" not in metadata:
        raise OptionError(f"{path}: has no tokenizer: give a finished student.safetensors")
    training = json.loads(metadata.get("training", "{}"))
    return Finished(path, student, metadata["tokenizer"], training)


def agree(finished: Sequence[Finished]) -> bool:
    """Whether they share one vocabulary and one image size, so that they can be averaged."""
    return len({(one.tokenizer, one.student.dimensions.image_size) for one in finished}) == 1


def averaged(finished: Sequence[Finished], settings: Settings = DEFAULTS) -> StudentTeacher:
    """Students that agree as one teacher."""
    return StudentTeacher(
        ",".join(one.path for one in finished),
        [one.student for one in finished],
        Tokenizer.from_str(finished[0].tokenizer),
        [one.training for one in finished],
        settings,
    )


def load(rest: str, settings: Settings = DEFAULTS) -> StudentTeacher:
    """`student:CHECKPOINT`.

    Raises:
        OptionError: it is no finished student.
        NanocapError: the checkpoint is missing or damaged.
    """
    return averaged([read(rest)], settings)


def joined(paths: Sequence[str]) -> StudentTeacher:
    """The students at these paths as one teacher, which has one distribution over pieces.

    Raises:
        OptionError: their vocabularies or their image sizes differ, or one is no finished student.
        NanocapError: a checkpoint is missing or damaged.
    """
    finished = [read(path) for path in paths]
    if not agree(finished):
        raise OptionError(
            f"{', '.join(paths)}: students of different vocabularies or image sizes cannot be "
            "averaged: train them with one tokenizer (the recipe's `start` keeps it)"
        )
    return averaged(finished)
