"""Teachers: whatever can caption photos for a student to learn from.

A kind is a file with a function `load(rest)` that makes a teacher of what stands after the colon of
`KIND:REST`, and a line in `load_teacher`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from nanocap.errors import OptionError


@dataclass(frozen=True)
class Scored:
    """A caption and how likely its teacher thinks it: the mean log probability of a piece."""

    text: str
    score: float


class Teacher(Protocol):
    """A captioner of any size."""

    name: str  # what its captions are logged with

    def caption(self, images: Sequence[Image.Image], n: int) -> list[list[Scored]]:
        """At most `n` different captions of each photo, best first."""
        ...


def load_teacher(spec: str) -> Teacher:
    """The teacher that `KIND:REST` describes, such as `student:runs/nano-s/student.safetensors`.

    Raises:
        OptionError: the kind is unknown.
        NanocapError: what it names cannot be loaded.
    """
    from nanocap.distill.teachers import student

    kinds: dict[str, Callable[[str], Teacher]] = {
        "student": student.load,
        "ensemble": student.load_ensemble,
    }
    kind, colon, rest = spec.partition(":")
    if not colon or kind not in kinds:
        raise OptionError(
            f"teacher {spec!r} is not of the form KIND:REST; kinds are {', '.join(kinds)}"
        )
    return kinds[kind](rest)
