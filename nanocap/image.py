"""From anything that holds an image to the pixels that the encoder takes.

The rule is data (`ImageRule`, from the bundle's manifest), so that every binding can follow it:
decode fully, put alpha over white, convert to RGB, turn upright, resize with an antialiased filter.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from nanocap.errors import ImageError, OptionError, one_line
from nanocap.formats import open_image

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

MAX_PIXELS = 100_000_000  # 100 megapixels: 400 MB once decoded
ORIENTATION = 0x0112  # EXIF tag
STRIP_ROWS = 128  # 2 MB of a photo 4,000 pixels wide

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
FITS = ("squash",)
EXIF = ("apply", "ignore")


@dataclass(frozen=True)
class ImageRule:
    """How an image becomes the encoder's input.

    Attributes:
        size: side of the square input, in pixels.
        fit: `squash`: both sides are scaled to `size`, whatever the aspect.
        resample: filter of the resize, always antialiased (its support grows with the scale).
        mean, std: per channel, on the scale 0 to 255. The encoder graph applies them itself;
            they are here for bindings whose graph does not.
        exif: `apply` turns the image upright by its EXIF orientation, `ignore` does not.
    """

    size: int = 224
    fit: str = "squash"
    resample: str = "bilinear"
    mean: tuple[float, float, float] = (127.0, 127.0, 127.0)
    std: tuple[float, float, float] = (128.0, 128.0, 128.0)
    exif: str = "apply"

    def __post_init__(self) -> None:
        if not 1 <= self.size <= 4096:
            raise OptionError(f"image rule: size must be 1 to 4096 pixels, got {self.size}")
        for field, known in (("fit", FITS), ("resample", tuple(RESAMPLE)), ("exif", EXIF)):
            if getattr(self, field) not in known:
                raise OptionError(
                    f"image rule: {field} must be one of {', '.join(known)},"
                    f" got {getattr(self, field)!r}"
                )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise OptionError("image rule: mean and std need three numbers each, std above 0")


def load_image(
    source: ImageSource, rule: ImageRule | None = None, *, max_pixels: int = MAX_PIXELS
) -> npt.NDArray[np.uint8]:
    """The pixels of `source` as the encoder takes them.

    Equal to resizing `load_rgb(source)`, first the rows, then the columns, each half rounded to
    whole numbers; but done in strips: of the full size only the decoded image is held, never a
    second copy in RGB or turned upright.

    Args:
        source: a path, the bytes of a file, a binary file object, a PIL image, or an array
            [height, width], [height, width, 1 to 4] of uint8, uint16, bool or floats in 0 to 1.
            The same image gives the same pixels in each of these forms.
        rule: default `ImageRule()`.
        max_pixels: an image with more (width x height) is refused before it is decoded.

    Returns:
        uint8 [size, size, 3], RGB.

    Raises:
        ImageError: it cannot be read; one line with the input and the remedy.
    """
    rule = rule or ImageRule()
    decoded = _decode(source, rule.exif, max_pixels)
    with _damage(decoded.name):
        side, resample = rule.size, RESAMPLE[rule.resample]
        # Rows and columns apart, because Pillow's order between them depends on its version and
        # on the shape, and because the first half can then be done strip by strip.
        narrow = Image.new("RGB", (side, decoded.height))
        for top in range(0, decoded.height, STRIP_ROWS):
            bottom = min(top + STRIP_ROWS, decoded.height)
            strip = decoded.rows(top, bottom)
            narrow.paste(strip.resize((side, bottom - top), resample), (0, top))
        return np.asarray(narrow.resize((side, side), resample), dtype=np.uint8)


def load_rgb(
    source: ImageSource, *, exif: str = "apply", max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """`source` decoded at its full size: mode RGB, alpha over white, upright; a new image.

    Raises ImageError.
    """
    decoded = _decode(source, exif, max_pixels)
    with _damage(decoded.name):
        return decoded.rows(0, decoded.height)


@dataclass(frozen=True)
class _Decoded:
    """An image with its pixels in memory, not yet RGB or upright."""

    image: Image.Image
    name: str
    orientation: int  # EXIF's, 1 to 8

    @property
    def height(self) -> int:
        """Of the upright image."""
        return self.image.width if self.orientation >= 5 else self.image.height

    def rows(self, top: int, bottom: int) -> Image.Image:
        """Rows of the upright image, as RGB."""
        if self.orientation in (3, 4, 7, 8):  # its first row is stored last
            top, bottom = self.height - bottom, self.height - top
        width, height = self.image.size
        box = (top, 0, bottom, height) if self.orientation >= 5 else (0, top, width, bottom)
        rgb = _to_rgb(self.image.crop(box))
        return rgb.transpose(UPRIGHT[self.orientation]) if self.orientation > 1 else rgb


def _decode(source: ImageSource, exif: str, max_pixels: int) -> _Decoded:
    name = describe(source)
    if isinstance(source, Image.Image):
        return _load(source, name, exif, max_pixels)
    if isinstance(source, np.ndarray):
        return _load(_from_array(source, max_pixels), name, exif, max_pixels)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _read(io.BytesIO(source), name, exif, max_pixels)
    if hasattr(source, "read"):
        return _read(cast("IO[bytes]", source), name, exif, max_pixels)
    try:
        path = os.fspath(source)
    except TypeError:
        raise ImageError(
            f"{name}: not an image; give a path, bytes, a file object, a PIL image or an array"
        ) from None
    try:
        with open(path, "rb") as file:
            return _read(file, name, exif, max_pixels)
    except FileNotFoundError:
        raise ImageError(f"{name}: there is no such file; check the path") from None
    except IsADirectoryError:
        raise ImageError(f"{name}: this is a folder; name an image file") from None
    except PermissionError:
        raise ImageError(f"{name}: no permission to read it; check its access rights") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        raise ImageError(f"{name}: cannot be opened ({error}); check the path") from None


def describe(source: object) -> str:
    """How messages name an input: its path where it has one, else its kind and size."""
    if isinstance(source, (str, os.PathLike)):
        return one_line(os.fspath(source)) or "''"
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"bytes input ({len(source)} bytes)"
    if isinstance(source, np.ndarray):
        return f"array {source.dtype} {list(source.shape)}"
    if isinstance(source, Image.Image):
        path = getattr(source, "filename", "")
        return one_line(path) if path else f"PIL image {source.mode} {source.width}x{source.height}"
    name = getattr(source, "name", None)
    return one_line(name) if isinstance(name, str) else f"{type(source).__name__} object"


def _read(file: IO[bytes], name: str, exif: str, max_pixels: int) -> _Decoded:
    with open_image(file, name) as image:
        return _load(image, name, exif, max_pixels)


def _load(image: Image.Image, name: str, exif: str, max_pixels: int) -> _Decoded:
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"{name}: the image has no pixels ({width}x{height}); use another")
    if width * height > max_pixels:
        raise ImageError(
            f"{name}: {width}x{height} is {width * height / 1e6:.1f} megapixels, above the limit of"
            f" {max_pixels / 1e6:g}; scale it down or raise the limit (--max-pixels, max_pixels)"
        )
    with _damage(name):
        image.load()
        orientation = _orientation(image) if exif == "apply" else 1
        deep = image.mode.startswith(("I", "F"))
        return _Decoded(_to_eight_bits(image) if deep else image, name, orientation)


@contextmanager
def _damage(name: str) -> Iterator[None]:
    """Whatever a decoder or a conversion raises, as an ImageError about `name`."""
    try:
        yield
    except MemoryError:
        raise ImageError(f"{name}: not enough memory for so many pixels; scale it down") from None
    except Exception as error:  # decoders raise almost anything on damaged input
        raise ImageError(
            f"{name}: damaged or cut off, cannot be decoded ({error}); copy or export it again"
        ) from None


def _orientation(image: Image.Image) -> int:
    try:
        orientation = int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # broken EXIF is common and says nothing about the pixels
        return 1
    return orientation if orientation in UPRIGHT else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image if image.mode == "RGBA" else image.convert("RGBA")
    white = Image.new("RGB", layer.size, (255, 255, 255))
    white.paste(layer, mask=layer)
    return white


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Deep grayscale as mode L. Pillow's own convert() clips at 255, which is almost all white."""
    deep = np.asarray(image)
    if deep.dtype.kind == "f":
        eight = _unit_to_bytes(deep)
    else:
        top = int(deep.max())
        if top > 0xFFFF:  # 32-bit integers have no agreed range: the brightest is white
            eight = (np.maximum(deep, 0) / (top / 255.0)).astype(np.uint8)
        else:
            eight = (np.maximum(deep, 0) >> 8).astype(np.uint8)  # as for 16-bit colour
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        eight[deep == clear] = 255
    return Image.fromarray(eight)


def _unit_to_bytes(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Floats in 0 to 1 (where the largest is above 1: in 0 to the largest) as 0 to 255."""
    finite = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    top = max(1.0, float(finite.max()))
    return np.rint(np.clip(finite / top, 0.0, 1.0) * 255.0).astype(np.uint8)


def _from_array(array: npt.NDArray[Any], max_pixels: int) -> Image.Image:
    name = describe(array)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (2, 3, 4)):
        raise ImageError(f"{name}: an image array is [height, width] or [height, width, 1 to 4]")
    if array.size == 0:
        raise ImageError(f"{name}: the array has no pixels; use another")
    if array.shape[0] * array.shape[1] <= max_pixels:  # else refused next, without a copy
        if array.dtype == np.bool_:
            array = array.astype(np.uint8) * np.uint8(255)
        elif array.dtype.kind == "f":
            array = _unit_to_bytes(array)
        elif array.dtype == np.uint16:
            array = (array >> 8).astype(np.uint8)
    if array.dtype != np.uint8:
        raise ImageError(f"{name}: use uint8, uint16, bool, or floats in 0 to 1")
    return Image.fromarray(np.ascontiguousarray(array))
