"""What decoding a JPEG or a JPEG 2000 takes, read off its markers without decoding.

Of a progressive JPEG, and of any whose colours come in scans of their own, the decoder holds all
coefficients, and goes over them once a scan: a file of half a megabyte can hold it for minutes.
OpenJPEG holds a whole tile as 32-bit integers, and many files are one tile. ITU-T T.81, annex B;
ISO/IEC 15444-1, A.5.1.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import IO

COEFFICIENT_BYTES = 2
BLOCK = 8  # coefficients a side
SCAN, END = 0xDA, 0xD9
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers that give the size
SEQUENTIAL = {0xC0, 0xC1}  # frames of them may come in one scan
BARE = {0x01, *range(0xD0, 0xD9)}  # markers without a length
CHUNK = 1 << 16
# A marker among coded pixels, where 0xFF alone is written FF 00 and restarts are D0 to D7.
_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]", re.DOTALL)
CODE_STREAM = b"\xff\x4f\xff\x51"
INTEGER_BYTES = 4
MAX_BOXES = 1000


@dataclass(frozen=True)
class Scans:
    """How a JPEG is stored."""

    several: bool  # it is decoded in more than one scan
    coefficients: int  # bytes of all of them, which are held if so
    first: int  # where the first scan's pixels begin in the file


def read_scans(file: IO[bytes]) -> Scans | None:
    """What the header says, up to the first scan; None where it is damaged."""
    file.seek(2)
    frame, several = b"", False
    while True:
        marker = _next_marker(file)
        if marker is None:
            return None
        if marker in BARE:
            continue
        size = int.from_bytes(file.read(2), "big") - 2
        if size < 0:
            return None
        if marker in FRAMES:
            frame = file.read(size)
            several = marker not in SEQUENTIAL
        elif marker == SCAN:
            scan = file.read(size)
            if len(frame) < 6 or not scan:
                return None
            return Scans(several or scan[0] < frame[5], _coefficients(frame), file.tell())
        else:
            file.seek(size, 1)


def count_scans(file: IO[bytes], first: int, limit: int) -> int:
    """Scans of the JPEG whose first one's pixels begin at `first`; at most `limit` are counted."""
    count, position = 1, first
    file.seek(position)
    data = file.read(CHUNK)
    place = 0
    while count < limit:
        found = _MARKER.search(data, place)
        if found is None or found.end() + 2 > len(data):
            # The last bytes may be the start of a marker and its length.
            position += found.end() - 2 if found else max(len(data) - 1, 0)
            file.seek(position)
            fresh = file.read(CHUNK)
            if len(fresh) < 4:
                break
            data, place = fresh, 0
            continue
        marker = data[found.end() - 1]
        if marker == END:
            break
        count += marker == SCAN
        place = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
        if place > len(data):
            position += place
            file.seek(position)
            data, place = file.read(CHUNK), 0
    return count


def _next_marker(file: IO[bytes]) -> int | None:
    byte = file.read(1)
    while byte and byte != b"\xff":
        byte = file.read(1)
    while byte == b"\xff":
        byte = file.read(1)
    return byte[0] if byte else None


def _coefficients(frame: bytes) -> int:
    height, width, colours = struct.unpack_from(">HHB", frame, 1)
    samplings = [divmod(sampling, 16) for sampling in frame[7 : 6 + 3 * colours : 3]]
    wide = max((across for across, _ in samplings), default=1) or 1
    high = max((down for _, down in samplings), default=1) or 1
    blocks = sum(
        -(-width * across // (BLOCK * wide)) * -(-height * down // (BLOCK * high))
        for across, down in samplings
    )
    return blocks * BLOCK * BLOCK * COEFFICIENT_BYTES


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
