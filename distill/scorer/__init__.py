"""From photos with captions and a finished student to an image-text scorer (`nanocap scorer`).

Reading order: `recipe`, `losses`, `objective`, `monitor`, `trainer`, `similarity`.
"""

from __future__ import annotations

from nanocap.distill.teachers.similarity import ImageTextScorer

__all__ = ["ImageTextScorer"]
