"""Opening a file that a user names without waiting for it: no named pipe, no device."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from nanocap.errors import ImageError

KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a disk device",
}
# What a shell hands over as a path: standard input, and the pipe of <(command).
HANDED = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")


def odd_kind(mode: int) -> str:
    """What a file is that is no regular file, by its `st_mode`; empty for one that is."""
    return "" if stat.S_ISREG(mode) else KINDS.get(stat.S_IFMT(mode), "a special file")


@contextmanager
def open_file(path: str, name: str) -> Iterator[IO[bytes]]:
    """The file at `path`, opened for bytes; never waits for another program to open its end.

    Args:
        path: of a regular file, or of what a shell hands over: `/dev/stdin`, `/dev/fd/63`.
        name: the input's name for messages.

    Raises:
        ImageError: a named pipe, a socket, a device or a terminal.
        OSError: it cannot be opened; as `open` raises it.
    """
    handed = os.path.abspath(path).startswith(HANDED)
    if not handed:
        # Asked first: to open a device can already do something, such as rewind a tape.
        _refuse_odd(os.stat(path).st_mode, name)
    with open(path, "rb", opener=None if handed else _without_waiting) as file:
        if not handed:
            _refuse_odd(os.fstat(file.fileno()).st_mode, name)  # it may have been exchanged
        elif file.isatty():
            raise ImageError(f"{name}: a terminal, not a photo; pipe a photo into it")
        yield file


def read_file(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file. Raises OSError, also for what is no regular file."""
    kind = odd_kind(os.stat(path).st_mode)
    if kind:
        raise OSError(errno.EINVAL, f"{kind}, not a regular file", path)
    with open(path, "rb", opener=_without_waiting) as file:
        return file.read()


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _refuse_odd(mode: int, name: str) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(name)
    kind = odd_kind(mode)
    if kind:
        raise ImageError(
            f"{name}: {kind}, not a regular file; give a file, or pipe a photo into /dev/stdin"
        )
