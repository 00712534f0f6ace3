"""What holds an image: a path, a file, an array, an image of Pillow."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import IO, Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from nanocap.errors import ImageError, one_line
from nanocap.image.decoding.values import is_array

ImageSource: TypeAlias = (
    str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | IO[bytes]
    | Image.Image
    | npt.NDArray[Any]
)


def describe(source: object) -> str:
    """How messages name an input: its path where it has one, else its kind and size."""
    if isinstance(source, (str, os.PathLike)):
        try:
            return one_line(os.fsdecode(os.fspath(source))) or "''"
        except TypeError:  # a path of somebody else's that is none
            return f"{type(source).__name__} object"
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"bytes input ({len(source)} bytes)"
    if isinstance(source, Image.Image):
        path = getattr(source, "filename", "")
        return one_line(path) if path else f"PIL image {source.mode} {source.width}x{source.height}"
    if is_array(source):
        kind = "array" if isinstance(source, np.ndarray) else type(source).__name__
        values = (getattr(source, "dtype", ""), list(getattr(source, "shape", ())))
        return one_line(" ".join([kind, *map(str, values)]))
    name = getattr(source, "name", None)
    return one_line(name) if isinstance(name, str) else f"{type(source).__name__} object"


def is_one_image(source: object) -> bool:
    """Whether `source` is one image, not several of them; raises ImageError for neither."""
    known = isinstance(source, (str, bytes, bytearray, memoryview, os.PathLike, Image.Image))
    if known or is_array(source) or hasattr(source, "read"):
        return True
    if isinstance(source, Iterable):
        return False
    raise ImageError(
        f"{describe(source)}: not an image; give a path, bytes, a file object, a PIL image,"
        " an array, or a list of them"
    )
