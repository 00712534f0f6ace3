"""What the tests of the student share: small dimensions and fixed randomness."""

from __future__ import annotations

import pytest
import torch

from nanocap.student import Dimensions


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def small() -> Dimensions:
    """A student of 64 x 64 pixels, 16 tokens merged to 6, small enough for a test."""
    return Dimensions(
        image_size=64,
        width=32,
        heads=4,
        encoder_blocks=2,
        decoder_layers=2,
        vocabulary=50,
        max_tokens=12,
        keep=(11, 6),
    )
