"""Photos to measure with."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nanocap.errors import ImageError
from nanocap.measure.bench.photos import draw_photo, read_photo


def test_a_drawn_photo_is_a_jpeg_as_heavy_as_a_photograph() -> None:
    photo = draw_photo(800, 600)
    image = Image.open(io.BytesIO(photo.data))
    assert (image.format, image.size) == ("JPEG", (800, 600)) == ("JPEG", (photo.width, 600))
    bits_a_pixel = 8 * len(photo.data) / (800 * 600)
    assert 1 < bits_a_pixel < 4, "cameras write about two"
    assert np.asarray(image).std() > 20, "something is on it"


def test_the_seed_decides() -> None:
    assert draw_photo(64, 48, seed=1) == draw_photo(64, 48, seed=1)
    assert draw_photo(64, 48, seed=1).data != draw_photo(64, 48, seed=2).data


def test_the_users_own(photo_files: list[Path], tmp_path: Path) -> None:
    photo = read_photo(photo_files[0])
    assert (photo.width, photo.height) == (64, 48)
    assert photo.data == photo_files[0].read_bytes()
    with pytest.raises(ImageError, match="there is no such file"):
        read_photo(tmp_path / "gone.jpg")
