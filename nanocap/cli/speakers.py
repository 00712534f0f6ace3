"""Whose captions `nanocap eval` scores: a bundle's, those in a file, or a teacher's."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nanocap.bundle import default_bundle
from nanocap.caption import Caption
from nanocap.errors import DataError, ImageError
from nanocap.image.image import load_rgb
from nanocap.measure.report.cards import Side
from nanocap.progress import Progress
from nanocap.runtime.captioner import Captioner

if TYPE_CHECKING:
    from nanocap.distill.data.sources import Example

CAPTION_FILES = (".jsonl",)
TEACHER = re.compile(r"[a-z]{2,}:")  # two letters at least: C:\captions.jsonl is a file
TEACHER_BEAMS = 3  # as many as the shipped bundle searches with


@dataclass(frozen=True)
class Question:
    """What each speaker is asked; `artifact`, `threads` and `length` are for bundles alone."""

    photos: Sequence[Example]
    leave_out: Callable[[str, str], None]  # told the key of a photo, and why
    artifact: str | None = None
    threads: int | None = None
    beams: int | None = None  # None: the bundle's own, or `TEACHER_BEAMS`
    length: str | None = None
    n_best: int = 1  # captions a photo
    batch_size: int = 16
    folders: Sequence[Path] = ()  # that the photos lie in, as far as they are files

    @property
    def paths(self) -> dict[str, str]:
        """Of the photos, by key."""
        return {photo.key: photo.path or photo.key for photo in self.photos}


@dataclass(frozen=True)
class Answer:
    """What a speaker said: captions a photo, best first."""

    side: Side
    candidates: dict[str, list[str]]
    confidences: dict[str, float] | None = None  # of a bundle whose confidence was calibrated


def is_bundle(target: str) -> bool:
    """Whether a target is neither a file of captions nor a teacher."""
    return Path(target).suffix.lower() not in CAPTION_FILES and TEACHER.match(target) is None


def listen(target: str | None, question: Question) -> Answer:
    """The captions of a target, or of the model inside the package. Raises NanocapError."""
    if target is None or is_bundle(target):
        return _bundle(Path(target) if target else default_bundle(), question)
    if TEACHER.match(target):
        return _teacher(target, question)
    return _written(Path(target), question)


def _bundle(path: Path, question: Question) -> Answer:
    captioner = Captioner(path, artifact=question.artifact, threads=question.threads)
    progress = Progress(len(question.photos), "captioning", plain=True)
    spoken: dict[str, Caption] = {}
    outcomes = captioner.attempt(
        (photo.image for photo in question.photos),
        batch_size=question.batch_size,
        beams=question.beams,
        length=question.length,
        n_best=question.n_best,
    )
    for photo, outcome in zip(question.photos, outcomes, strict=True):
        if isinstance(outcome, ImageError):
            progress.clear()
            question.leave_out(photo.key, str(outcome))
        else:
            spoken[photo.key] = outcome
        progress.step()
    progress.clear()
    calibrated = captioner.manifest.confidence is not None
    return Answer(
        Side.of_bundle(path, captioner.artifact.name, question.length, spoken),
        {key: [one.text for one in (best, *best.alternatives)] for key, best in spoken.items()},
        {key: one.confidence for key, one in spoken.items()} if calibrated else None,
    )


def _teacher(spec: str, question: Question) -> Answer:
    """A teacher sees photos as the labelling engine shows them to it."""
    from nanocap.distill.teachers import KeyedTeacher, ask, load_teacher

    teacher = load_teacher(spec)
    if isinstance(teacher, KeyedTeacher):
        teacher.expect(question.paths, question.folders)
    progress, found = Progress(len(question.photos), "captioning", plain=True), {}
    wanted = max(question.beams or TEACHER_BEAMS, question.n_best)
    for first in range(0, len(question.photos), question.batch_size):
        keys, images = [], []
        for photo in question.photos[first : first + question.batch_size]:
            try:
                images.append(load_rgb(photo.image))
                keys.append(photo.key)
            except ImageError as error:
                progress.clear()
                question.leave_out(photo.key, str(error))
            progress.step()
        for key, said in zip(keys, ask(teacher, keys, images, wanted), strict=True):
            if said:
                found[key] = [one.text for one in said[: question.n_best]]
            else:
                progress.clear()
                question.leave_out(key, f"{spec} says nothing of it")
    progress.clear()
    return Answer(Side(spec, {key: texts[0] for key, texts in found.items()}), found)


def _written(path: Path, question: Question) -> Answer:
    from nanocap.distill.data.keys import find_photos
    from nanocap.distill.data.rows import read_captions
    from nanocap.distill.teachers.file import no_photo

    said: dict[str, tuple[str, ...]] = {}
    for line in read_captions(path):
        if line.name in said:
            raise DataError(f"{path}: {line.name} appears twice")
        said[line.name] = line.texts
    photos = question.paths
    found = find_photos(list(said), photos, question.folders)
    if said and photos and not found:
        raise DataError(no_photo(path, next(iter(said)), next(iter(photos))))
    for name in sorted(said.keys() - found.keys()):
        question.leave_out(name, f"{path} has a caption of it, but there are no references")
    for key in sorted(photos.keys() - set(found.values())):
        question.leave_out(key, f"{path} has no caption of it")
    texts = {
        found[name]: list(several[: question.n_best] or ("",))
        for name, several in said.items()
        if name in found
    }
    return Answer(Side(str(path), {key: several[0] for key, several in texts.items()}), texts)
