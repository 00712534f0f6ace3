"""Augmentation of photos: random crops of varying aspect, squashed to the square, and flips.

The runtime squashes a photo of any shape to a square, so training must see many squashes.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SMALLEST_AREA = 0.6  # of the photo that a crop keeps
LOG_ASPECT = math.log(4 / 3)  # a crop is stretched by at most this, either way


def squash(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """The whole photo on a square, as at run time: uint8 [size, size, 3]."""
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def augment(
    image: Image.Image, size: int, random: np.random.Generator, may_flip: bool
) -> NDArray[np.uint8]:
    """A random crop, squashed and perhaps mirrored: uint8 [size, size, 3]."""
    area = random.uniform(SMALLEST_AREA, 1.0)
    stretch = math.exp(random.uniform(-LOG_ASPECT, LOG_ASPECT) / 2)
    wide, high = min(1.0, math.sqrt(area) * stretch), min(1.0, math.sqrt(area) / stretch)
    left, top = random.uniform(0, 1 - wide), random.uniform(0, 1 - high)
    width, height = image.size
    box = (left * width, top * height, (left + wide) * width, (top + high) * height)
    pixels = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box))
    flip = bool(random.random() < 0.5)
    return np.ascontiguousarray(pixels[:, ::-1]) if flip and may_flip else pixels
