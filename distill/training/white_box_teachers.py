"""White-box teachers of a run: finished students whose distributions a new one learns."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from nanocap.distill.data.batches import Schedule
from nanocap.distill.data.corpus import Corpus
from nanocap.distill.data.feature_cache import Maps
from nanocap.distill.teachers import KINDS
from nanocap.distill.teachers.student import StudentTeacher, agree, read
from nanocap.distill.training.losses import Reader, divergence
from nanocap.errors import OptionError, RecipeError
from nanocap.files.digest import file_digest


class Guides:
    """Students that share one vocabulary, which the new student takes over.

    They see the very view of a photo that the student sees ("A good teacher is patient and
    consistent", Beyer et al. 2022): as it trains, or beforehand (`teacher_logits_cache`) where the
    views are cached.

    Raises:
        RecipeError: one is not the path of a student, but a teacher that has no logits.
        OptionError: their vocabularies or their image sizes differ, or one is no finished student.
        NanocapError: a file is missing or damaged.
    """

    def __init__(self, paths: Sequence[Path]):
        for path in paths:
            _check_white_box(path)
        self.paths = paths
        finished = [read(str(path)) for path in paths]
        if not agree(finished):
            raise OptionError(
                f"{', '.join(map(str, paths))}: students of different vocabularies or image sizes"
                " cannot be averaged: train them with one tokenizer (the recipe's `start` keeps it)"
            )
        teacher = StudentTeacher(finished)
        self.students, self.tokenizer = teacher.students, teacher.tokenizer.to_str()
        self.training = teacher.training
        for student in self.students:
            student.requires_grad_(False)

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of each file."""
        return tuple(map(file_digest, self.paths))

    def feeds(self, corpus: Corpus, schedule: Schedule, views: int, cache: Path) -> list[Maps]:
        """Cached maps of each teacher's own trunk; files are shared where the trunks are equal."""
        return [Maps(corpus, schedule, student, views, cache) for student in self.students]

    @torch.no_grad()
    def look(self, inputs: Sequence[Tensor], from_maps: bool) -> list[Reader]:
        """Each with its own input before it: normalized pixels, or its trunk's lower maps."""
        readers = []
        for guide, x in zip(self.students, inputs, strict=True):
            guide.to(x.device)
            ours = guide.encoder.from_map(x) if from_maps else guide.encoder(x)
            readers.append(Reader(guide.decoder, ours))
        return readers

    def watch(self, pixels_BCHW: Tensor) -> Watching:
        """What they make of a batch of pixels, asked while training."""
        return Watching(self.look([pixels_BCHW] * len(self.students), False))


class Watching:
    """Teachers that look at the batch together with the student."""

    def __init__(self, readers: Sequence[Reader]):
        self.seen, self._readers = seen(readers), readers

    def divergence(
        self, logits: Tensor, part: Tensor, tokens: Tensor, image: Tensor, counted: Tensor
    ) -> Tensor:
        """Kullback-Leibler divergence [counted] of the student's logits from the teachers."""
        with torch.no_grad():
            theirs = [reader.logits(tokens, image, counted) for reader in self._readers]
        return divergence(logits, theirs)


def seen(readers: Sequence[Reader]) -> Tensor:
    """The teachers' mean visual tokens [B, channels], each scaled to length one, side by side."""
    pooled = [reader.seen.tokens.float().mean(1) for reader in readers]
    return torch.cat([one / one.norm(dim=1, keepdim=True) for one in pooled], dim=1)


def _check_white_box(path: Path) -> None:
    for place, part in enumerate(path.parts):
        kind, colon, _ = part.partition(":")
        if colon and kind in KINDS and not path.exists():
            spec = "/".join(path.parts[place:])
            raise RecipeError(
                f"teachers: {spec!r} is no path of a student.safetensors, which alone has logits "
                f"to learn from; any teacher can label photos: nanocap label --teacher {spec}"
            )
