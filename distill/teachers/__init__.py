"""Teachers: whatever can caption photos for a student to learn from.

A kind is a file with a function `load(rest, settings)` that makes a teacher of what stands after
the colon of `KIND:REST`, and a line in `KINDS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

from PIL import Image

from nanocap.distill.teachers.settings import DEFAULTS, Settings
from nanocap.errors import OptionError

KINDS = {  # kind -> module with its `load`
    "student": "nanocap.distill.teachers.student",
    "hf": "nanocap.distill.teachers.hf",
    "file": "nanocap.distill.teachers.file",
    "ensemble": "nanocap.distill.teachers.ensemble",
}
PROMPTED = ("hf", "ensemble")  # kinds that may be asked in other words


@dataclass(frozen=True)
class Scored:
    """A caption and how good its teacher thinks it.

    For one model that is the mean log probability of a piece; for a pool of several, how well the
    other candidates agree (`nanocap.distill.teachers.ensemble`); zero for captions from a file.
    """

    text: str
    score: float


class Teacher(Protocol):
    """A captioner of any size."""

    name: str  # what its captions are logged with

    def caption(self, images: Sequence[Image.Image], n: int) -> list[list[Scored]]:
        """At most `n` different captions of each photo, best first."""


@runtime_checkable
class KeyedTeacher(Protocol):
    """A teacher that must know which photos it is asked about, not only what they look like."""

    name: str

    def expect(self, photos: Mapping[str, str], folders: Sequence[Path]) -> None:
        """Hear, before the first question, which photos there will be.

        Args:
            photos: their paths by key; the key again where a photo has no path.
            folders: where they lie.
        Raises:
            DataError: it knows none of them.
        """

    def caption_keyed(
        self, keys: Sequence[str], images: Sequence[Image.Image], n: int
    ) -> list[list[Scored]]:
        """At most `n` different captions of each photo, best first."""


def distinct(captions: Iterable[tuple[str, float]]) -> list[Scored]:
    """Texts with their scores, best first: each text once, and none that is empty."""
    best: dict[str, float] = {}
    for text, score in captions:
        if text:
            best.setdefault(text, score)
    return [Scored(text, score) for text, score in best.items()]


def ask(
    teacher: Teacher | KeyedTeacher, keys: Sequence[str], images: Sequence[Image.Image], n: int
) -> list[list[Scored]]:
    """At most `n` different captions of each photo, from a teacher of either protocol."""
    if isinstance(teacher, KeyedTeacher):
        return teacher.caption_keyed(keys, images, n)
    return teacher.caption(images, n)


def kind_of(spec: str) -> tuple[str, str]:
    """The two parts of `KIND:REST`. Raises OptionError where the kind is unknown."""
    kind, colon, rest = spec.partition(":")
    if not colon or kind not in KINDS:
        raise OptionError(
            f"teacher {spec!r} is not of the form KIND:REST; kinds are {', '.join(KINDS)}"
        )
    return kind, rest


def load_teacher(spec: str, settings: Settings = DEFAULTS) -> Teacher | KeyedTeacher:
    """The teacher that `KIND:REST` describes.

    `student:CHECKPOINT` is a captioner of this project, `hf:ID_OR_PATH` one of transformers (such
    as `hf:Salesforce/blip-image-captioning-base`), `file:CAPTIONS.jsonl` what somebody wrote, and
    `ensemble:A,B,...` several of them; its members without a kind are students.

    Raises:
        OptionError: the kind is unknown, or takes no prompt.
        NanocapError: what it names cannot be loaded.
    """
    kind, rest = kind_of(spec)
    if settings.prompt is not None and kind not in PROMPTED:
        raise OptionError(f"teacher {spec!r} takes no prompt: only hf:ID_OR_PATH does")
    return cast("Teacher | KeyedTeacher", import_module(KINDS[kind]).load(rest, settings))
