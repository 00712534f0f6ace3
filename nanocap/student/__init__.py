"""The student: a convolutional trunk, a few transformer blocks that merge tokens, a decoder.

The only part of `nanocap` that imports torch. Reading order: `dimensions`, `trunk`, `merging`,
`reducers`, `encoder`, `decoder`, `student`.
"""

from __future__ import annotations

import nanocap.threads  # noqa: F401  # before torch
from nanocap.errors import MissingExtraError

try:
    import torch  # noqa: F401
except ImportError as error:
    raise MissingExtraError("nanocap.student", "distill", error.name) from error

from nanocap.student.dimensions import PRESETS, Dimensions
from nanocap.student.student import Student

__all__ = ["PRESETS", "Dimensions", "Student"]
