"""From anything that holds an image to the pixels that the encoder takes.

The rule is data (`ImageRule`, from the bundle's manifest), so that every binding can follow it:
decode fully, convert to sRGB, put alpha over white, turn upright, resize with an antialiased
filter.
"""

from __future__ import annotations

import errno
import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from nanocap.bounds import MAX_PIXELS, whole
from nanocap.errors import ImageError, OptionError
from nanocap.files.regular_file import open_file
from nanocap.image.decoding import limits
from nanocap.image.decoding.colour import rgb_conversion
from nanocap.image.decoding.values import Box, array_image, check_values, is_array, strip_rows
from nanocap.image.formats import open_image
from nanocap.image.rule import ImageRule
from nanocap.image.source import ImageSource, describe

ORIENTATION = 0x0112  # EXIF tag
MAX_EXIF = 1 << 20  # bytes; each of its tags may name all of them, and is copied
FILTER_BYTES = 16  # of the weights of a resize, for each pixel of a side
LONGEST_NAME = 200  # characters of an input that is no path, in a message
URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/|data:", re.IGNORECASE)

# What to do to stored pixels so that they are upright, by EXIF orientation (CIPA DC-008, 4.6.5).
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
RESAMPLE = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def load_image(
    source: ImageSource, rule: ImageRule | None = None, *, max_pixels: int = MAX_PIXELS
) -> npt.NDArray[np.uint8]:
    """The pixels of `source` as the encoder takes them.

    Equal to resizing `load_rgb(source)`, first the rows, then the columns, each half rounded to
    whole numbers; but done in strips: of the full size only the decoded image is held, never a
    second copy in RGB or turned upright.

    Arrays, and Pillow images made in memory, follow one rule: uint8 is 0 to 255, bool is black and
    white, floats are 0 to 1, uint16 (Pillow: `I;16`, `I`) is 0 to 65535 and not 0 to 255 in
    disguise, so that some value must be above 255 or all be 0. Whatever else they hold is an error.
    Files say themselves what their numbers mean.

    Colours of another profile than sRGB are converted to it; a profile that is broken gives an
    `ImageWarning` and is ignored.

    Args:
        source: a path, the bytes of a file, a binary file object, a PIL image, or an array
            [height, width], [height, width, 1 to 4], or what numpy makes one of.
            The same image gives the same pixels in each of these forms.
        rule: default `ImageRule()`.
        max_pixels: an image with more (width x height) is refused before it is decoded, and so is
            one that would take more than 4 bytes for each of so many pixels, or minutes.

    Returns:
        uint8 [size, size, 3], RGB.

    Raises:
        ImageError: it cannot be read; one line with the input and the remedy.
    """
    rule = ImageRule() if rule is None else rule
    if not isinstance(rule, ImageRule):
        raise OptionError(f"rule must be an ImageRule, got {rule!r}")
    decoded = _decode(source, rule.exif, max_pixels, limits.PIXEL_BYTES * rule.size)
    with _damage(decoded.name):
        side, resample = rule.size, RESAMPLE[rule.resample]
        # Rows and columns apart, because Pillow's order between them depends on its version and
        # on the shape, and because the first half can then be done strip by strip.
        narrow = Image.new("RGB", (side, decoded.height))
        step = strip_rows(decoded.width)
        for top in range(0, decoded.height, step):
            bottom = min(top + step, decoded.height)
            strip = decoded.rows(top, bottom)
            narrow.paste(strip.resize((side, bottom - top), resample), (0, top))
        return np.asarray(narrow.resize((side, side), resample), dtype=np.uint8)


def load_rgb(
    source: ImageSource, *, exif: str = "apply", max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """`source` at its full size: RGB, sRGB, alpha over white, upright, new. Raises ImageError."""
    ImageRule(exif=exif)  # which checks it
    decoded = _decode(source, exif, max_pixels, 0)
    with _damage(decoded.name):
        whole = decoded.rows(0, decoded.height)
        whole.info = {}  # the profile and the orientation are done with
        return whole


@dataclass(frozen=True)
class _Decoded:
    """An image with its pixels in memory, not yet RGB or upright; `width` and `height` are so."""

    crop: Callable[[Box], Image.Image]  # a part of it as it is stored, as RGB
    size: tuple[int, int]
    name: str
    orientation: int  # EXIF's, 1 to 8

    @property
    def width(self) -> int:
        return self.size[self.orientation >= 5]

    @property
    def height(self) -> int:
        return self.size[self.orientation < 5]

    def rows(self, top: int, bottom: int) -> Image.Image:
        """Rows of the upright image, as RGB."""
        if self.orientation in (3, 4, 7, 8):  # its first row is stored last
            top, bottom = self.height - bottom, self.height - top
        width, height = self.size
        box = (top, 0, bottom, height) if self.orientation >= 5 else (0, top, width, bottom)
        rgb = self.crop(box)
        return rgb.transpose(UPRIGHT[self.orientation]) if self.orientation > 1 else rgb


def _decode(source: ImageSource, exif: str, max_pixels: int, row_bytes: int) -> _Decoded:
    """The pixels of anything that holds an image; `row_bytes` are needed beside for each row."""
    name, max_pixels = describe(source), whole("max_pixels", max_pixels, 1)
    try:
        return _decode_any(source, name, exif, max_pixels, row_bytes)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # what an object of somebody else's does when it is read
        raise ImageError(
            f"{name}: cannot be read ({type(error).__name__}: {error}); give a path, bytes, a file"
            " object, a PIL image or an array"
        ) from None


def _decode_any(
    source: ImageSource, name: str, exif: str, max_pixels: int, row_bytes: int
) -> _Decoded:
    if isinstance(source, Image.Image):
        return _load(source, name, exif, max_pixels, row_bytes)
    if is_array(source):
        return _load_array(source, name, max_pixels, row_bytes)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _read(io.BytesIO(source), name, exif, max_pixels, row_bytes)
    if hasattr(source, "read"):
        return _read(cast("IO[bytes]", source), name, exif, max_pixels, row_bytes)
    try:
        path = os.fsdecode(os.fspath(cast("str | os.PathLike[str]", source)))
    except TypeError:
        raise ImageError(
            f"{name}: not an image; give a path, bytes, a file object, a PIL image or an array"
        ) from None
    try:
        with open_file(path, name) as file:
            return _read(file, name, exif, max_pixels, row_bytes)
    except IsADirectoryError:
        raise ImageError(f"{name}: this is a folder; name an image file") from None
    except PermissionError:
        raise ImageError(f"{name}: no permission to read it; check its access rights") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        raise _not_opened(path, name, error) from None


def _not_opened(path: str, name: str, error: OSError | ValueError) -> ImageError:
    short = name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..."
    if path.lower().startswith("file:/"):
        return ImageError(f"{short}: a URL; give the path alone, without file://")
    if URL.match(path):
        return ImageError(
            f"{short}: a URL; nanocap takes files, never the network; save the photo first"
        )
    if isinstance(error, FileNotFoundError):
        return ImageError(f"{name}: there is no such file; check the path")
    if getattr(error, "errno", None) == errno.ENAMETOOLONG:
        return ImageError(f"{short}: too long for a path; give a file's path, or its bytes")
    return ImageError(f"{name}: cannot be opened ({error}); check the path")


def _read(file: IO[bytes], name: str, exif: str, max_pixels: int, row_bytes: int) -> _Decoded:
    with open_image(file, name, max_pixels) as image:
        return _load(image, name, exif, max_pixels, row_bytes)


def _load(image: Image.Image, name: str, exif: str, max_pixels: int, row_bytes: int) -> _Decoded:
    limits.refuse_large(image.size, name, max_pixels)
    with _damage(name):
        limits.refuse_costly(image, name, max_pixels, _working_bytes(image.size, row_bytes))
        image.load()
        # Only now: a TIFF has turned itself, and a PNG may tell after its pixels.
        orientation = _orientation(image) if exif == "apply" else 1
        convert = rgb_conversion(image, name)
        return _Decoded(lambda box: convert(image.crop(box)), image.size, name, orientation)


def _load_array(source: object, name: str, max_pixels: int, row_bytes: int) -> _Decoded:
    image = array_image(source, name)
    limits.refuse_large(image.size, name, max_pixels)
    limits.refuse_memory(image.size, _working_bytes(image.size, row_bytes), name, max_pixels)
    check_values(image, name)
    convert = rgb_conversion(image.crop((0, 0, 1, 1)), name)
    return _Decoded(lambda box: convert(image.crop(box)), image.size, name, 1)


def _working_bytes(size: tuple[int, int], row_bytes: int) -> int:
    """What resizing an image takes beside it, whichever side is upright; nothing without rows."""
    return max(size) * (row_bytes + FILTER_BYTES) if row_bytes else 0


@contextmanager
def _damage(name: str) -> Iterator[None]:
    """Whatever a decoder or a conversion raises, as an ImageError about `name`."""
    try:
        yield
    except ImageError:
        raise
    except MemoryError:
        raise ImageError(f"{name}: not enough memory for so many pixels; scale it down") from None
    except Exception as error:  # decoders raise almost anything on damaged input
        raise ImageError(
            f"{name}: damaged or cut off, cannot be decoded ({error}); copy or export it again"
        ) from None


def _orientation(image: Image.Image) -> int:
    if len(image.info.get("exif") or b"") > MAX_EXIF:
        return 1
    try:
        orientation = int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # broken EXIF is common and says nothing about the pixels
        return 1
    return orientation if orientation in UPRIGHT else 1
