"""A file whose header is read within bounds.

Headers hold comments, thumbnails and tags of any length, and Pillow keeps them all. A file that
never comes to its pixels would take all memory, or be read byte by byte for minutes.
"""

from __future__ import annotations

from typing import Any, Protocol

MAX_HEADER = 32 << 20  # bytes; a phone's depth maps and previews may take ten megabytes of it
READ_COST = 256  # what reading takes besides the bytes, in bytes: some read one by one


class Readable(Protocol):
    """What is read here: a binary file, or what stands for one."""

    def read(self, size: int = -1, /) -> bytes:
        """Bytes from here on."""


class HeaderTooLongError(Exception):
    """The pixels have not begun after `MAX_HEADER` bytes."""


class MeteredFile:
    """A binary file that stops a reader after so many bytes, until `free` is called.

    Args:
        file: can seek.
    """

    def __init__(self, file: Readable) -> None:
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
