"""What a file is by its header, which is read within bounds.

Headers hold comments, thumbnails and tags of any length, and Pillow keeps them all. A file that
never comes to its pixels would take all memory, or be read byte by byte for minutes.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass
from typing import IO, Any

from nanocap.image.decoding.png import SIGNATURE, PlainPng

MAX_HEADER = 32 << 20  # bytes; a phone's depth maps and previews may take ten megabytes of it
READ_COST = 256  # what reading takes besides the bytes, in bytes: some read one by one
HEAD = 4096  # bytes that are looked at

AVIF_BRANDS = {b"avif", b"avis"}
HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
# Any image format of the family; which one, the other brands say, or the coded items.
FAMILY_BRANDS = {b"mif1", b"mif2", b"msf1", b"miaf"}

VIDEO = "a video; give a frame of it as a JPEG"
RAW = "a raw photo of a camera; export it as JPEG or TIFF"
# What is often found under the name of a photo, or kept beside photos: pattern, what it is.
FOREIGN = (
    (rb"\xff\x0a|\x00\x00\x00\x0cJXL \r\n\x87\n", "a JPEG XL image; export it as JPEG or PNG"),
    (rb".{4}ftypcrx ", RAW),
    (rb".{4}ftyp(avci|avcs|jxsi|jxsc)", "an image of an unusual codec; export it as JPEG"),
    (rb".{4}(ftyp|moov|mdat|wide)", VIDEO),
    (rb"\x1aE\xdf\xa3|RIFF.{4}AVI |\x00\x00\x01[\xb3\xba]|FLV\x01|OggS", VIDEO),
    (rb"(II\*\x00|MM\x00\*).{4}CR", RAW),
    (rb"FUJIFILMCCD-RAW|IIR[OS]|MMOR|IIU\x00|\x00MRM|FOVb|.{6}HEAPCCDR", RAW),
    (rb"%PDF", "a PDF document; export its page as a PNG"),
    (rb"8BPS", "a Photoshop document; export it as JPEG or PNG"),
    (rb"gimp xcf", "a GIMP document; export it as JPEG or PNG"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "a PostScript drawing, not an image; export it as a PNG"),
    (rb"v/1\x01|#\?RADIANCE", "an image of high dynamic range; export it as JPEG or PNG"),
    (rb".{128}DICM", "a DICOM image; export it as a PNG"),
    (rb"qoif|DDS |icns|\x00\x00\x02\x00|BPG\xfb|FLIF|II\xbc", "an image of another format;"
     " export it as JPEG or PNG"),
    (rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!|\xfd7zXZ", "an archive; unpack it"),
    (rb"version https://git-lfs", "a pointer of Git LFS, not the photo; run git lfs pull"),
    (rb"(\xef\xbb\xbf)?\s*<(!doctype html|html|head|body)", "a web page, not the photo on it;"
     " save the photo itself"),
    (rb"(\xef\xbb\xbf)?\s*<[?!s].*<svg|\s*<svg", "an SVG drawing; export it as a PNG"),
)  # fmt: skip
ENTRY = struct.Struct("<BBBBHHII")
BITMAP = struct.Struct("<Iii")


def brands(head: bytes) -> list[bytes]:
    """The brands of an ISO file (HEIC, AVIF, MP4), the major one first; none for other files."""
    if head[4:8] != b"ftyp":
        return []
    size = int.from_bytes(head[:4], "big")
    start, end = (16, int.from_bytes(head[8:16], "big")) if size == 1 else (8, size or len(head))
    box = head[start : min(end, len(head))]
    return [box[:4], *(box[i : i + 4] for i in range(8, len(box) - 3, 4))]


def coded_image(head: bytes) -> str:
    """`AVIF` or `HEIC` where an ISO file says that it holds such an image; else empty."""
    found = brands(head)
    for brand in found:
        if brand in AVIF_BRANDS:
            return "AVIF"
        if brand in HEIC_BRANDS:
            return "HEIC"
    if FAMILY_BRANDS.isdisjoint(found):
        return ""
    return "AVIF" if b"av01" in head else "HEIC"


def foreign(head: bytes) -> str:
    """What a file is that nanocap does not read, and what to do; empty where that is unknown."""
    flags = re.DOTALL | re.IGNORECASE
    return next((what for rule, what in FOREIGN if re.match(rule, head, flags)), "")


class HeaderTooLongError(Exception):
    """The pixels have not begun after `MAX_HEADER` bytes."""


class MeteredFile:
    """A file that can seek and stops a reader after so many bytes, until `free` is called."""

    def __init__(self, file: IO[bytes] | PlainPng) -> None:
        self._file = file
        self._left: float = MAX_HEADER

    def read(self, size: int = -1) -> bytes:
        """Bytes from here on. Raises HeaderTooLongError."""
        data = self._file.read(size)
        self._left -= len(data) + READ_COST
        if self._left < 0:
            raise HeaderTooLongError
        return data

    def free(self) -> None:
        """From now on anything may be read: the header is over."""
        self._left = float("inf")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@dataclass(frozen=True)
class IconImage:
    """The largest image of an icon, and where it is in the file, in bytes."""

    start: int
    size: int
    is_png: bool  # else it is a bitmap, below it a mask
    width: int  # of a bitmap, by its own header
    height: int


def largest_image(file: IO[bytes]) -> IconImage | None:
    """The image that Pillow takes as well; None where the icon is damaged."""
    file.seek(4)
    (count,) = struct.unpack("<H", file.read(2).ljust(2, b"\0"))
    table = file.read(count * ENTRY.size)
    entries = list(ENTRY.iter_unpack(table[: len(table) // ENTRY.size * ENTRY.size]))
    if not entries:
        return None
    *_, size, start = min(entries, key=_rank)
    file.seek(start)
    head = file.read(16)
    if len(head) < 16:
        return None
    _, width, height = BITMAP.unpack_from(head)
    return IconImage(start, size, head.startswith(SIGNATURE), abs(width), abs(height) // 2)


def _rank(entry: tuple[int, ...]) -> tuple[int, int]:
    width, height, colours, _, _, depth, _, _ = entry
    depth = depth or (math.ceil(math.log2(colours)) if colours > 1 else 256)
    return -(width or 256) * (height or 256), depth
