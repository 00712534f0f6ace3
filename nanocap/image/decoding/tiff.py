"""What a TIFF holds, read off its first directory before Pillow takes all of it into memory.

Adobe, TIFF 6.0, section 2; BigTIFF has the same with longer numbers.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import IO

from PIL import ImageFile

SUBFILE, BITS, COLOURS, ORIENTATION = 254, 258, 262, 274
STRIPS, SAMPLES, ROWS, PLANAR = 273, 277, 278, 284
TILE_WIDTH, TILE_HEIGHT, TILES, SUBDIRECTORIES, DNG = 322, 323, 324, 330, 50706
TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8}
CANON = b"CR"  # behind the header of a CR2
MAX_ENTRIES = 4096
MAX_PARTS = 500_000  # strips or tiles: 100 megapixels in tiles of 16x16 have 390,000
PART_BYTES = 400  # what Pillow keeps of each part, in Python objects
REDUCED = 1  # flag of SUBFILE: a smaller copy of another image of the file
YCBCR, SEPARATE = 6, 2
RGBA_BYTES = 4


@dataclass(frozen=True)
class Directory:
    """The first directory."""

    parts: int  # strips or tiles
    data: int  # bytes of all tags, which Pillow reads
    raw: bool  # it is a preview in a raw photo of a camera


def read_directory(file: IO[bytes]) -> Directory | None:
    """The counts of a TIFF's first directory, without its values; None where it is damaged."""
    file.seek(0)
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    big = head[2:4] in (b"+\0", b"\0+")
    entry, count, start = ("HHQ8s", "Q", 8) if big else ("HHL4s", "H", 4)
    try:
        (offset,) = struct.unpack_from(order + ("Q" if big else "L"), head, start)
        file.seek(offset)
        (entries,) = struct.unpack(order + count, file.read(struct.calcsize(order + count)))
        size = struct.calcsize(order + entry)
        table = file.read(min(entries, MAX_ENTRIES) * size)
        rows = list(struct.iter_unpack(order + entry, table[: len(table) // size * size]))
    except (struct.error, OverflowError, OSError, ValueError):
        return None
    counts = {tag: number for tag, _, number, _ in reversed(rows)}
    subfile = next((value for tag, _, _, value in rows if tag == SUBFILE), b"\0" * 4)
    reduced = int.from_bytes(subfile[:4], "little" if order == "<" else "big") & REDUCED
    return Directory(
        parts=max(counts.get(STRIPS, 0), counts.get(TILES, 0)),
        data=sum(TYPE_BYTES.get(kind, 0) * number for _, kind, number, _ in rows),
        raw=head[8:10] == CANON or DNG in counts or bool(reduced and SUBDIRECTORIES in counts),
    )


def decoding_bytes(image: ImageFile.ImageFile, file_bytes: int, in_file: bool) -> int:
    """What Pillow takes to decode an opened TIFF, besides the image itself.

    A file on disk (`in_file`), not in memory already, is mapped whole by libtiff.
    """
    tags = image.tag_v2  # type: ignore[attr-defined]  # of TiffImageFile
    pixels = image.width * image.height
    turned = pixels * RGBA_BYTES if tags.get(ORIENTATION, 1) != 1 else 0
    offsets = sorted(tile[2] for tile in image.tile)
    if image.tile[0][0] == "raw":  # not compressed
        # Pillow reads from one part to the next at once, and joins that to what was left over.
        widest = max((after - here for here, after in pairwise(offsets)), default=0)
        return turned + 2 * min(widest, file_bytes) + len(offsets) * PART_BYTES
    bits = tags.get(BITS, 1)
    samples = 1 if tags.get(PLANAR, 1) == SEPARATE else tags.get(SAMPLES, 1)
    width, height = tags.get(TILE_WIDTH), tags.get(TILE_HEIGHT)
    if width is None or height is None:
        width, height = image.width, min(tags.get(ROWS, image.height), image.height)
    each = max(bits) if isinstance(bits, tuple) else bits
    part = width * height * math.ceil(samples * each / 8)
    if tags.get(COLOURS) == YCBCR:
        part = max(part, width * height * RGBA_BYTES)
    return turned + part + (file_bytes if in_file else 0)
