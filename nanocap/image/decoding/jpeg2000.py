"""What decoding a JPEG 2000 takes, read off the header of its code stream.

OpenJPEG holds a whole tile as 32-bit integers, and many files are one tile. ISO/IEC 15444-1, A.5.1.
"""

from __future__ import annotations

import struct
from typing import IO

CODE_STREAM = b"\xff\x4f\xff\x51"
INTEGER_BYTES = 4
MAX_BOXES = 1000


def tile_bytes(file: IO[bytes]) -> int | None:
    """What decoding one tile takes, in bytes; None where the header is damaged."""
    file.seek(0)
    head = file.read(4)
    if head != CODE_STREAM and not _find_code_stream(file):
        return None
    header = file.read(38)
    if len(header) < 38:
        return None
    _, _, right, bottom, left, top, wide, high, _, _, colours = struct.unpack(
        ">HHIIIIIIIIH", header
    )
    depths = file.read(3 * colours)[::3]
    pixels = min(right - left, wide) * min(bottom - top, high)
    sample = max((2 if (depth & 0x7F) >= 8 else 1 for depth in depths), default=1)
    return pixels * colours * (INTEGER_BYTES + sample)


def _find_code_stream(file: IO[bytes]) -> bool:
    """Go to the code stream among the boxes of a JP2, behind its first marker and SIZ."""
    position = 0
    for _ in range(MAX_BOXES):
        file.seek(position)
        head = file.read(16)
        if len(head) < 8:
            return False
        size, start = int.from_bytes(head[:4], "big"), position + 8
        if size == 1:
            size, start = int.from_bytes(head[8:16], "big"), position + 16
        if head[4:8] == b"jp2c":
            file.seek(start)
            return file.read(4) == CODE_STREAM
        if size < 8:  # 0: to the end of the file
            return False
        position += size
    return False
