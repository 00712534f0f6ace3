"""A PNG without what says nothing about the pixels of its first frame.

Pillow reads every text, takes one above a megabyte for an attack and refuses the whole file.
Here text, private chunks and later frames are passed over, and the profile is inflated within
bounds, so that neither its size nor theirs matters. https://www.w3.org/TR/png-3/#11Chunks
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from typing import IO

SIGNATURE = b"\x89PNG\r\n\x1a\n"
KEPT = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
TEXTS = {b"tEXt", b"zTXt", b"iTXt"}
ORIENTING = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")  # texts that may hold it
MAX_METADATA = 1 << 20  # bytes of EXIF or of such a text, inflated; Pillow's own limit
MAX_PROFILE = 16 << 20  # bytes of a colour profile, inflated
MAX_CHUNKS = 1_000_000  # a photo of 100 megapixels in chunks of the usual 8 KB has 50,000
MAX_READ = 1 << 20  # bytes at once: rows are read in smaller blocks, what is left over never


class PlainPng:
    """A binary file with the chunks of a PNG that its pixels need, for Pillow to read.

    Args:
        file: a PNG that can seek; damaged ones are handed on as they are from the damage on.

    Attributes:
        profile: of the colours; None where there is none or it is broken.
        has_profile: whether there is one, broken or not.

    Raises:
        ValueError: more chunks than any photo has.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.profile: bytes | None = None
        self.has_profile = False
        self._file = file
        self._place = 0
        self._starts: list[int] = []  # of each run of kept bytes: here,
        self._sources: list[int] = []  # and in the file
        self._end = 0
        self._keep(0, len(SIGNATURE))
        position = len(SIGNATURE)
        for _ in range(MAX_CHUNKS):
            file.seek(position)
            head = file.read(8)
            size, name = int.from_bytes(head[:4], "big"), head[4:]
            if len(head) < 8 or not name.isalpha():
                self._keep(position, 1 << 62)
                return
            if self._wanted(name, size):
                self._keep(position, 12 + size)
            if name == b"IEND":
                return
            position += 12 + size
        raise ValueError(f"more than {MAX_CHUNKS} chunks")

    def read(self, size: int = -1) -> bytes:
        """Bytes from here on; of more than a megabyte, the rest is passed over."""
        left = MAX_READ if size < 0 else min(size, MAX_READ)
        beyond = max(size, left) - left
        parts = []
        while left > 0 and self._place < self._end:
            run = bisect_right(self._starts, self._place) - 1
            stop = self._starts[run + 1] if run + 1 < len(self._starts) else self._end
            self._file.seek(self._sources[run] + self._place - self._starts[run])
            part = self._file.read(min(left, stop - self._place))
            if not part:
                break
            parts.append(part)
            self._place += len(part)
            left -= len(part)
        self._place += beyond
        return b"".join(parts)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place, counted from the start or from here."""
        self._place = offset + (self._place if whence == 1 else 0)
        return self._place

    def tell(self) -> int:
        """The place of the next byte."""
        return self._place

    @property
    def held(self) -> int:
        """Bytes of the file in memory, as `Piped` counts them."""
        return int(getattr(self._file, "held", 0))

    def _keep(self, position: int, size: int) -> None:
        if not self._starts or position != self._sources[-1] + self._end - self._starts[-1]:
            self._starts.append(self._end)
            self._sources.append(position)
        self._end += size

    def _wanted(self, name: bytes, size: int) -> bool:
        """Whether Pillow shall see a chunk, whose data come next in the file."""
        if name == b"iCCP" and not self.has_profile:
            self.has_profile = True
            data = self._file.read(min(size, MAX_PROFILE)).partition(b"\0")[2]
            self.profile = inflated(data[1:], MAX_PROFILE)
        if name == b"eXIf":
            return size <= MAX_METADATA
        if name in TEXTS and size <= MAX_METADATA:
            data = self._file.read(size)
            return data.startswith(ORIENTING) and not _inflates(name, data)
        return name in KEPT


def inflated(data: bytes, limit: int) -> bytes | None:
    """`data` inflated; None where it is damaged or would be longer than `limit`."""
    stream = zlib.decompressobj()
    try:
        result = stream.decompress(data, limit)
    except zlib.error:
        return None
    return result if stream.eof else None


def _inflates(name: bytes, data: bytes) -> bool:
    """Whether a text is compressed and too long, or damaged, once it is inflated."""
    rest = data.partition(b"\0")[2]
    if name == b"iTXt" and rest[:1] == b"\1":
        rest = b"\0" + rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    elif name != b"zTXt":
        return False
    return inflated(rest[1:], MAX_METADATA) is None
