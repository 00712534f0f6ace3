"""A student at another number of visual tokens than it was trained with.

Its weights fit any number: only the reducers' schedule changes. A number that it was not trained
with is bolted on, and what that costs has to be measured.
"""

from __future__ import annotations

from dataclasses import replace

from nanocap.convert.errors import ConversionError
from nanocap.student import Dimensions, Student


def with_tokens(student: Student, tokens: int) -> Student:
    """The student with so many visual tokens: itself where it has them already.

    Raises:
        ConversionError: it cannot come to so many.
    """
    dimensions = student.dimensions
    if tokens == dimensions.visual_tokens:
        return student
    most = dimensions.grid**2
    if not 1 <= tokens <= most:
        raise ConversionError(f"{tokens} visual tokens: this student has from 1 to {most}")
    other = Student(replace(dimensions, keep=schedule(dimensions, tokens)))
    other.load_state_dict(student.state_dict())
    return other.eval()


def schedule(dimensions: Dimensions, tokens: int) -> tuple[int, ...]:
    """`keep` for so many tokens: the student's own reductions as far as they go, then the last.

    Raises:
        ConversionError: the student has no block to reduce in.
    """
    if not dimensions.keep:
        raise ConversionError(
            f"{tokens} visual tokens: this student has no encoder blocks, so it always has"
            f" {dimensions.visual_tokens}"
        )
    return (*(max(count, tokens) for count in dimensions.keep[:-1]), tokens)
