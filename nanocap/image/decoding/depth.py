"""Deep grayscale, 16 and 32 bits and floats, as 8 bits, a strip at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from nanocap.errors import ImageError

Pixels = npt.NDArray[Any]

SIXTEEN_BITS, EIGHT_BITS = 0xFFFF, 0xFF
TOLERANCE = 1e-3  # of floats in 0 to 1: what rounding of half precision leaves
STRIP_PIXELS = 1 << 20  # 4 MB of a photo in RGB


def strip_rows(width: int) -> int:
    """Rows that are converted at once, so that the copies of a strip stay small."""
    return max(1, min(128, STRIP_PIXELS // max(width, 1)))


def is_deep(image: Image.Image) -> bool:
    """Whether a Pillow image is grayscale of more than 8 bits."""
    return image.mode.startswith(("I", "F"))


def eight_bits(image: Image.Image, name: str) -> Callable[[Image.Image], Image.Image]:
    """What turns strips of a deep image into mode L. Pillow's own convert() clips at 255.

    A file declares its depth: 16 bits are 0 to 65535; of 32-bit integers and floats, which have no
    agreed range, the largest is white. An image from memory follows the rule of arrays.

    Raises:
        ImageError: its values are outside the rule.
    """
    low, high = _range(image)
    floats = image.mode == "F"
    if image.format is None:
        check_range(name, low, high, floats)
    clear = image.info.get("transparency")
    convert = partial(_float_bytes if floats else _integer_bytes, top=high)
    return partial(_converted, convert=convert, clear=clear if isinstance(clear, int) else None)


def check_range(name: str, low: float, high: float, floats: bool) -> None:
    """Raise ImageError where the values of an image in memory are outside what they may be.

    Args:
        low, high: the smallest and the largest; not a number where one of them is none.
        floats: they must be in 0 to 1; else they are 16-bit integers, in 0 to 65535.
    """
    if floats:
        if not np.isfinite([low, high]).all():
            raise ImageError(f"{name}: values that are no numbers (NaN, infinity); replace them")
        if low < -TOLERANCE or high > 1 + TOLERANCE:
            raise ImageError(
                f"{name}: floats must be in 0 to 1, these are in {low:.4g} to {high:.4g};"
                " scale them (values of 0 to 255: divide by 255)"
            )
    elif low < 0 or high > SIXTEEN_BITS:
        raise ImageError(
            f"{name}: integers must be in 0 to 65535, these are in {low:.0f} to {high:.0f};"
            " scale them, or convert them to uint8"
        )
    elif 0 < high <= EIGHT_BITS:
        raise ImageError(
            f"{name}: values of 0 to 255 in more than 8 bits, nearly black where white is 65535;"
            " convert them to uint8, or scale them to 0 to 65535"
        )


def unit_to_bytes(values: Pixels) -> npt.NDArray[np.uint8]:
    """Floats in 0 to 1 as 0 to 255."""
    return np.rint(np.clip(values.astype(np.float32), 0.0, 1.0) * 255.0).astype(np.uint8)


def _range(image: Image.Image) -> tuple[float, float]:
    floats = image.mode == "F"
    lows, highs = [], []
    for strip in _strips(image):
        finite = _finite(strip) if floats and image.format is not None else strip
        lows.append(finite.min())
        highs.append(finite.max())
    return float(np.min(lows)), float(np.max(highs))


def _strips(image: Image.Image) -> Iterator[Pixels]:
    rows = strip_rows(image.width)
    for top in range(0, image.height, rows):
        yield np.asarray(image.crop((0, top, image.width, min(top + rows, image.height))))


def _converted(
    strip: Image.Image, convert: Callable[[Pixels], npt.NDArray[np.uint8]], clear: int | None
) -> Image.Image:
    deep = np.asarray(strip)
    eight = convert(deep)
    if clear is not None:
        eight[deep == clear] = 255
    return Image.fromarray(eight)


def _finite(values: Pixels) -> Pixels:
    return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)


def _float_bytes(values: Pixels, top: float) -> npt.NDArray[np.uint8]:
    return unit_to_bytes(_finite(values) / np.float32(max(1.0, top)))


def _integer_bytes(values: Pixels, top: float) -> npt.NDArray[np.uint8]:
    positive = np.maximum(values, 0)
    if top > SIXTEEN_BITS:
        return (positive / (top / 255.0)).astype(np.uint8)
    return (positive >> 8).astype(np.uint8)  # as for 16-bit colour
