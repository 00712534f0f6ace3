"""White-box teachers of a run: finished students whose distributions a new one learns."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from nanocap.distill.losses import Guidance
from nanocap.distill.teachers import KINDS
from nanocap.distill.teachers.student import joined
from nanocap.errors import RecipeError
from nanocap.student import Student


class Guides:
    """Students that share one vocabulary, which the new student takes over.

    They see the very view of a photo that the student sees ("A good teacher is patient and
    consistent", Beyer et al. 2022), so nothing of them is cached.

    Raises:
        RecipeError: one is not the path of a student, but a teacher that has no logits.
        OptionError: their vocabularies or their image sizes differ, or one is no finished student.
        NanocapError: a file is missing or damaged.
    """

    def __init__(self, paths: Sequence[Path]):
        for path in paths:
            _check_white_box(path)
        self.paths = paths
        teacher = joined([str(path) for path in paths])
        self.students, self.tokenizer = teacher.students, teacher.tokenizer.to_str()
        self.training = teacher.training
        for student in self.students:
            student.requires_grad_(False)

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of each file."""
        return tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in self.paths)

    def check_maps(self, student: Student) -> None:
        """Middle maps can be shared only by those whose lower trunk is the same.

        Raises:
            RecipeError: a teacher's is another.
        """
        ours = student.encoder.trunk.lower_parameters()
        for path, guide in zip(self.paths, self.students, strict=True):
            theirs = guide.encoder.trunk.lower_parameters()
            same = len(ours) == len(theirs) and all(
                a.shape == b.shape and torch.equal(a.cpu(), b.cpu())
                for a, b in zip(ours, theirs, strict=True)
            )
            if not same:
                raise RecipeError(
                    f"{path}: its lower trunk differs from the student's, so they cannot share "
                    'cached maps: add "lower" to what the stage trains'
                )

    @torch.no_grad()
    def look(self, inputs: Tensor, from_maps: bool, share: float) -> Guidance:
        """What they see in a batch of pixels, or of the trunk's middle maps."""
        sights = []
        for guide in self.students:
            guide.to(inputs.device)
            encoder = guide.encoder
            visual = encoder.from_map(inputs) if from_maps else encoder(inputs)
            sights.append((guide.decoder, visual))
        return Guidance(sights, share)


def _check_white_box(path: Path) -> None:
    for place, part in enumerate(path.parts):
        kind, colon, _ = part.partition(":")
        if colon and kind in KINDS and not path.exists():
            spec = "/".join(path.parts[place:])
            raise RecipeError(
                f"teachers: {spec!r} is no path of a student.safetensors, which alone has logits "
                f"to learn from; any teacher can label photos: nanocap label --teacher {spec}"
            )
