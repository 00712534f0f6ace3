"""What decoding an image takes, in memory and time, and the refusal of what takes too much.

A limit on pixels promises a limit on memory only where a pixel has one price. It has not: decoders
hold planes, coefficients or a second canvas beside the image. Each format's price a pixel was
measured with Pillow 13, pillow_heif 1.8 and images of 24 megapixels, in processes of their own.
"""

from __future__ import annotations

import io
from typing import IO

from PIL import Image, ImageFile

from nanocap.bounds import MAX_PIXELS
from nanocap.errors import ImageError
from nanocap.image.decoding import jpeg, tiff

PIXEL_BYTES = 4  # of RGB in Pillow, and what each pixel of the limit may take
ALLOWANCE = 64 << 20  # bytes beside the pixels: the header, strips, the narrow half of a resize

POINTER_BYTES = 8  # of a row, in each image of Pillow
MODE_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
WEBP_BYTES = 16  # two canvases of the animation decoder, its answer, and the image
AVIF_BYTES, HEIF_BYTES = 7.5, 8.0  # without and with the planes of 4:2:0
ALPHA_BYTES = 2.5
FULL_CHROMA_BYTES = 2.0
DEEP_BYTES = 1.5

# Passes over an image as large as the limit: encoders make about ten. Measured, one pass over a
# megapixel takes 3.5 ms at most, so 20 over 100 megapixels take 7 s.
MAX_SCANS = 20
SMALLEST_SCAN = 10_000  # pixels: a pass over fewer takes as long
# Decoders that are written in Python take 0.3 to 1.7 s a megapixel; bytes of a JPEG 2000, 0.14 s a
# megabyte.
PYTHON_PIXELS = {"ppm": 5_000_000, "ppm_plain": 5_000_000, "bmp_rle": 20_000_000}
PYTHON_BYTES = {"bmp_rle": 20_000_000, "ppm_plain": 60_000_000}
MAX_JPEG2000 = 48_000_000  # bytes

UNTILED = ("HEIF", "WEBP")  # formats whose plugins keep no list of what is to be decoded


class Piped(io.BytesIO):
    """What came through a pipe, held whole."""

    @property
    def held(self) -> int:
        """Bytes in memory."""
        return len(self.getbuffer())


def memory_limit(max_pixels: int) -> int:
    """Bytes that decoding an image of at most `max_pixels` may take."""
    return PIXEL_BYTES * max_pixels + ALLOWANCE


def refuse_large(size: tuple[int, int], name: str, max_pixels: int) -> None:
    """Raise ImageError where an image has no pixels or more than `max_pixels`."""
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"{name}: the image has no pixels ({width}x{height}); use another")
    if width * height > max_pixels:
        raise ImageError(
            f"{name}: {width}x{height} is {width * height / 1e6:.1f} megapixels, above the limit of"
            f" {max_pixels / 1e6:g}; scale it down or raise the limit (--max-pixels, max_pixels)"
        )


def refuse_costly(image: Image.Image, name: str, max_pixels: int, working: int = 0) -> None:
    """Raise ImageError where decoding takes too much, with `working` bytes beside the image."""
    undecoded = isinstance(image, ImageFile.ImageFile) and (image.tile or image.format in UNTILED)
    if isinstance(image, ImageFile.ImageFile) and image.fp is not None and undecoded:
        place = image.fp.tell()
        try:
            _refuse_slow(image, image.fp, name, max_pixels)
            working += decoding_bytes(image, image.fp)
        finally:
            image.fp.seek(place)
    refuse_memory(image.size, working, name, max_pixels)


def refuse_memory(size: tuple[int, int], needed: int, name: str, max_pixels: int) -> None:
    """Raise ImageError where an image of a size would take more memory than the limit allows."""
    limit = memory_limit(max_pixels)
    if needed > limit:
        raise ImageError(
            f"{name}: {size[0]}x{size[1]} of this kind takes {needed / 1e6:.0f} MB to decode, above"
            f" the {limit / 1e6:.0f} MB that {max_pixels / 1e6:g} megapixels may take;"
            " scale it down, save it as a plain JPEG, or raise the limit (--max-pixels, max_pixels)"
        )


def decoding_bytes(image: ImageFile.ImageFile, file: IO[bytes]) -> int:
    """Memory for decoding, the image included; `file` is what it is read from, left anywhere."""
    row = image.width * MODE_BYTES.get(image.mode, PIXEL_BYTES) + POINTER_BYTES
    held = int(getattr(file, "held", 0))  # of `Piped`, also where another file stands before it
    return image.height * row + held + _extra_bytes(image, file)


def file_bytes(file: IO[bytes]) -> int:
    """The size of a file that can seek; it is left at its end."""
    return file.seek(0, io.SEEK_END)


def _refuse_slow(image: ImageFile.ImageFile, file: IO[bytes], name: str, max_pixels: int) -> None:
    pixels = image.width * image.height
    decoder = image.tile[0][0] if image.tile else ""
    slow = pixels > PYTHON_PIXELS.get(decoder, pixels)
    most = MAX_JPEG2000 if image.format == "JPEG2000" else PYTHON_BYTES.get(decoder)
    if slow or (most is not None and file_bytes(file) > most):
        raise ImageError(
            f"{name}: {image.width}x{image.height} of this kind of {image.format} takes too long to"
            " decode; convert it to PNG or JPEG"
        )
    if image.format in ("JPEG", "MPO"):
        scans = jpeg.read_scans(file)
        most = MAX_SCANS * max(max_pixels, MAX_PIXELS) // max(pixels, SMALLEST_SCAN)
        if scans and scans.several and jpeg.count_scans(file, scans.first, most + 1) > most:
            raise ImageError(
                f"{name}: a progressive JPEG of more than {most} scans, which takes too long to"
                " decode; save it again as a plain JPEG"
            )


def _extra_bytes(image: ImageFile.ImageFile, file: IO[bytes]) -> int:
    """What the decoder of a format holds beside the image."""
    pixels = image.width * image.height
    if image.format in ("JPEG", "MPO"):
        scans = jpeg.read_scans(file)
        return scans.coefficients if scans and scans.several else 0
    if image.format == "TIFF":
        return tiff.decoding_bytes(image, file_bytes(file), not hasattr(file, "getbuffer"))
    if image.format == "JPEG2000":
        tile = jpeg.tile_bytes(file)
        return pixels * 4 * (jpeg.INTEGER_BYTES + 1) if tile is None else tile
    if image.format == "WEBP":
        each: float = WEBP_BYTES
    elif image.format == "AVIF":
        each = _avif_bytes(image, file)
    elif image.format == "HEIF":
        each = HEIF_BYTES + (ALPHA_BYTES if image.mode == "RGBA" else 0)
        each += FULL_CHROMA_BYTES if image.info.get("chroma", 420) != 420 else 0
        each += DEEP_BYTES if image.info.get("bit_depth", 8) > 8 else 0
    else:
        return 0
    return int(pixels * (each - PIXEL_BYTES)) + file_bytes(file)


def _avif_bytes(image: ImageFile.ImageFile, file: IO[bytes]) -> float:
    file.seek(0)
    head = file.read(1 << 16)
    place = head.find(b"av1C")
    flags = head[place + 6] if 0 <= place < len(head) - 6 else 0x40  # deep and 4:4:4
    deep, gray, half_wide, half_high = (flags >> bit & 1 for bit in (6, 4, 3, 2))
    planes = 1.0 if gray else 1 + 2 / (1 + half_wide) / (1 + half_high)
    alpha = image.mode in ("RGBA", "LA")
    return AVIF_BYTES + (planes + alpha) * (1 + deep) + (ALPHA_BYTES - 1 if alpha else 0)
