"""One rule for what numbers of images in memory mean, and an error for all else; all as 8 bits.

uint8 is 0 to 255, uint16 is 0 to 65535, bool is black and white, floats are 0 to 1. Whatever breaks
the rule is refused: scaled by a guess it would be captioned, black or white, as if it were a photo.
Deep grayscale, of 16 and 32 bits and floats, is converted a strip at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from nanocap.errors import ImageError

Pixels = npt.NDArray[Any]
Box = tuple[int, int, int, int]  # left, top, right, bottom

CHANNELS = (1, 2, 3, 4)
SIXTEEN_BITS, EIGHT_BITS = 0xFFFF, 0xFF
TOLERANCE = 1e-3  # of floats in 0 to 1: what rounding of half precision leaves
STRIP_PIXELS = 1 << 20  # 4 MB of a photo in RGB


def strip_rows(width: int) -> int:
    """Rows that are converted at once, so that the copies of a strip stay small."""
    return max(1, min(128, STRIP_PIXELS // max(width, 1)))


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


TO_BYTES: dict[str, Callable[[Pixels], npt.NDArray[np.uint8]]] = {  # by kind of dtype
    "b": lambda values: values.astype(np.uint8) * np.uint8(255),
    "f": unit_to_bytes,
    "u": lambda values: values if values.dtype == np.uint8 else (values >> 8).astype(np.uint8),
}


def is_array(source: object) -> bool:
    """Whether `source` is an array, or what numpy makes one of, such as a tensor of torch."""
    if isinstance(source, (str, bytes)):  # numpy's have them, too
        return False
    return hasattr(source, "__array__") or hasattr(source, "__array_interface__")


@dataclass(frozen=True)
class ArrayImage:
    """A checked array as an image, converted a part at a time."""

    values: Pixels  # [height, width] or [height, width, 2 to 4] of uint8, uint16, bool or floats

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.values.shape[1], self.values.shape[0]

    def crop(self, box: Box) -> Image.Image:
        """A part, in 8 bits: mode L, LA, RGB or RGBA."""
        left, top, right, bottom = box
        part = self.values[top:bottom, left:right]
        return Image.fromarray(np.ascontiguousarray(TO_BYTES[part.dtype.kind](part)))


def array_image(source: object, name: str) -> ArrayImage:
    """`source` as an image; raises ImageError, with how to mend it, where it is none."""
    array = _as_array(source, name)
    if array.ndim == 3 and array.shape[2] not in CHANNELS and array.shape[0] in CHANNELS:
        raise ImageError(
            f"{name}: channels come last, [height, width, channels]; use .transpose(1, 2, 0)"
            " (of torch: .permute(1, 2, 0))"
        )
    if array.ndim == 4:
        raise ImageError(f"{name}: four dimensions are several images; give them one by one")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in CHANNELS):
        raise ImageError(f"{name}: an image array is [height, width] or [height, width, 1 to 4]")
    if array.size == 0:
        raise ImageError(f"{name}: the array has no pixels; use another")
    if not (array.dtype.kind in "bf" or (array.dtype.kind == "u" and array.dtype.itemsize <= 2)):
        raise ImageError(
            f"{name}: use uint8, uint16, bool, or floats in 0 to 1 (integers of 0 to 255:"
            " .astype('uint8'))"
        )
    return ArrayImage(array)


def check_values(image: ArrayImage, name: str) -> None:
    """Raise ImageError where the numbers are outside the rule; looks at each of them."""
    values = image.values
    if values.dtype.kind == "f" or values.dtype.itemsize == 2:
        low, high = float(values.min()), float(values.max())
        check_range(name, low, high, floats=values.dtype.kind == "f")


def _as_array(source: object, name: str) -> Pixels:
    # Asked without numpy.ma, which is only imported for it.
    if isinstance(source, np.ndarray) and np.any(getattr(source, "mask", False)):
        raise ImageError(f"{name}: some of its pixels are masked; fill them: .filled(255)")
    try:
        return np.asarray(source)
    except Exception as error:  # whatever another library's array raises
        raise ImageError(
            f"{name}: cannot be turned into a numpy array ({error}); of torch, give"
            " tensor.detach().cpu().numpy()"
        ) from None
