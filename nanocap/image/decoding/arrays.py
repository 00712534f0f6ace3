"""Arrays as images: one rule for what their numbers mean, and an error for all else.

uint8 is 0 to 255, uint16 is 0 to 65535, bool is black and white, floats are 0 to 1. Whatever breaks
the rule is refused: scaled by a guess it would be captioned, black or white, as if it were a photo.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from nanocap.errors import ImageError
from nanocap.image.decoding.depth import check_range, unit_to_bytes

Pixels = npt.NDArray[Any]
Box = tuple[int, int, int, int]  # left, top, right, bottom

CHANNELS = (1, 2, 3, 4)
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
    """A checked array as an image, converted a part at a time.

    Attributes:
        values: [height, width] or [height, width, 2 to 4] of uint8, uint16, bool or floats.
    """

    values: Pixels

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
    """`source` as an image.

    Raises:
        ImageError: it is no image, or its numbers are outside the rule; says how to mend it.
    """
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
