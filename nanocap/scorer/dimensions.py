"""The dimensions of a scorer: one frozen record that travels in its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from nanocap.errors import NanocapError
from nanocap.student.dimensions import Dimensions


@dataclass(frozen=True)
class ScorerDimensions:
    """What must be known to rebuild a scorer around its weights.

    `student` is the student whose encoder looks at the photo and whose pieces spell the text.
    """

    student: Dimensions = field(default_factory=Dimensions)
    width: int = 256  # channels of every piece of a text
    heads: int = 4
    layers: int = 2  # of the text tower
    mlp_ratio: int = 4
    max_pieces: int = 38  # of a text, the end among them; longer texts are cut
    embedding: int = 256  # channels of the two vectors whose cosine is the score
    matching: int = 64  # channels in which visual tokens and pieces are matched

    def __post_init__(self) -> None:
        for name in (f.name for f in fields(self) if f.type == "int"):
            if getattr(self, name) < 1:
                raise NanocapError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.width % self.heads:
            raise NanocapError(f"width {self.width} is not a multiple of heads {self.heads}")

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return {**asdict(self), "student": self.student.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ScorerDimensions:
        """The inverse of `to_dict`.

        Raises:
            NanocapError: a key is unknown or a value does not fit.
        """
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise NanocapError(
                f"unknown dimension {unknown[0]!r}; known are {', '.join(sorted(known))}"
            )
        own = {name: value for name, value in values.items() if name != "student"}
        for name, value in own.items():
            if type(value) is not int:  # a truth value is no count
                raise NanocapError(f"dimension {name!r} must be of type int, not {value!r}")
        student = values.get("student", {})
        if not isinstance(student, Mapping):
            raise NanocapError(f"dimension 'student' must be a table, not {student!r}")
        return cls(student=Dimensions.from_dict(student), **own)
