"""Captioners that this project trained, one or the average of several, as a teacher."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer

from nanocap.distill.augment import squash
from nanocap.distill.beam import beam_search
from nanocap.distill.devices import mixed_precision
from nanocap.distill.maps import normalize
from nanocap.distill.rollout import to_texts
from nanocap.distill.teachers import Scored
from nanocap.errors import OptionError
from nanocap.student import Student

PREFIX = "student:"


class StudentTeacher:
    """Beam search over the averaged probabilities of students that share one vocabulary.

    Args:
        training: what each student's file says about how it was made.
    """

    def __init__(
        self,
        name: str,
        students: Sequence[Student],
        tokenizer: Tokenizer,
        training: Sequence[dict[str, Any]] = (),
    ):
        self.name, self.students, self.tokenizer = name, tuple(students), tokenizer
        self.training = tuple(training)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        for student in self.students:
            student.to(self.device).eval()
        self._narrow = mixed_precision("auto") == "bf16"

    def caption(self, images: Sequence[Image.Image], n: int) -> list[list[Scored]]:
        """At most `n` different captions of each photo, best first."""
        size = self.students[0].dimensions.image_size
        pixels = normalize(np.stack([squash(image, size) for image in images])).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._narrow):
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


def load(rest: str) -> StudentTeacher:
    """`student:CHECKPOINT`.

    Raises:
        NanocapError: the checkpoint is missing or damaged.
    """
    return joined([rest])


def load_ensemble(rest: str) -> StudentTeacher:
    """`ensemble:CHECKPOINT,CHECKPOINT,...` of students with one vocabulary and one image size.

    Raises:
        OptionError: their vocabularies or their image sizes differ.
        NanocapError: a checkpoint is missing or damaged.
    """
    return joined([path.strip().removeprefix(PREFIX) for path in rest.split(",")])


def joined(paths: Sequence[str]) -> StudentTeacher:
    """The students at these paths as one teacher.

    Raises:
        OptionError: their vocabularies or their image sizes differ, or one is no finished student.
        NanocapError: a checkpoint is missing or damaged.
    """
    students, tokenizers, training = [], [], []
    for path in paths:
        student, metadata = Student.load(Path(path))
        if "tokenizer" not in metadata:
            raise OptionError(f"{path}: has no tokenizer: give a finished student.safetensors")
        students.append(student)
        tokenizers.append(metadata["tokenizer"])
        training.append(json.loads(metadata.get("training", "{}")))
    if len({(t, s.dimensions.image_size) for t, s in zip(tokenizers, students, strict=True)}) > 1:
        raise OptionError(
            f"{', '.join(paths)}: students of different vocabularies or image sizes cannot be "
            "averaged: train them with one tokenizer (the recipe's `start` keeps it)"
        )
    tokenizer = Tokenizer.from_str(tokenizers[0])
    return StudentTeacher(",".join(paths), students, tokenizer, training)
