"""Which image of a Windows icon is its largest, found without decoding.

An icon's directory says 256x256 at most; the image behind it has a header of its own, and may be of
any size. Pillow decodes it as it opens the file.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import IO

from nanocap.image.decoding.png import SIGNATURE

ENTRY = struct.Struct("<BBBBHHII")
BITMAP = struct.Struct("<Iii")


@dataclass(frozen=True)
class IconImage:
    """The largest image of an icon.

    Attributes:
        start, size: where it is in the file, in bytes.
        is_png: else it is a bitmap, below it a mask.
        width, height: of a bitmap, by its own header.
    """

    start: int
    size: int
    is_png: bool
    width: int
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
