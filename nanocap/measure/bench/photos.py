"""Photos to measure with: drawn, so that anyone can repeat a figure, or one of the user's."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from nanocap.errors import ImageError
from nanocap.image.image import load_rgb

QUALITY = 90  # of phones' JPEG files, about
# Detail as in photographs: the finer, the fainter. Cells in pixels, and how much each blends in.
OCTAVES = ((400, 1.0), (100, 0.4), (25, 0.3), (6, 0.2), (2, 0.12))


@dataclass(frozen=True)
class Photo:
    """A photo's file in memory.

    Attributes:
        name: for people: its size, or its path.
        width, height: in pixels, upright.
        data: the bytes of the file.
    """

    name: str
    width: int
    height: int
    data: bytes


def draw_photo(width: int, height: int, seed: int = 0) -> Photo:
    """A JPEG with the detail, and so the bytes and the decoding time, of a photograph."""
    rng = np.random.default_rng(seed)

    def noise(cell: int) -> Image.Image:
        rows, columns = max(2, height // cell), max(2, width // cell)
        coarse = rng.integers(0, 256, (rows, columns, 3), dtype=np.uint8)
        return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)

    image = Image.new("RGB", (width, height))
    for cell, part in OCTAVES:
        image = Image.blend(image, noise(cell), part)
        if cell == OCTAVES[1][0]:  # things with edges, under the finer detail
            draw = ImageDraw.Draw(image)
            ground, body = (tuple(rng.integers(40, 200, 3).tolist()) for _ in range(2))
            draw.rectangle((0, height * 2 // 3, width, height), fill=ground)
            draw.ellipse((width // 3, height // 3, width // 2, height * 4 // 5), fill=body)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY, subsampling="4:2:0")
    return Photo(f"drawn JPEG {width}x{height}", width, height, file.getvalue())


def read_photo(path: Path) -> Photo:
    """The user's own photo.

    Raises:
        ImageError: it cannot be read.
    """
    width, height = load_rgb(path).size
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror}); check its rights") from None
    return Photo(str(path), width, height, data)
