"""The scorer: how well a text fits a photo, from two small towers over a student's encoder.

Reading order: `dimensions`, `pooling`, `image`, `text`, `scorer`.
"""

from __future__ import annotations

import nanocap.threads  # noqa: F401  # before torch
from nanocap.errors import MissingExtraError

try:
    import torch  # noqa: F401
except ImportError as error:
    raise MissingExtraError("nanocap.scorer", "distill", error.name) from error

from nanocap.scorer.dimensions import ScorerDimensions
from nanocap.scorer.scorer import Scorer

__all__ = ["Scorer", "ScorerDimensions"]
