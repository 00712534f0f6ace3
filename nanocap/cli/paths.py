"""The photos that a command line names: files, folders, and a list on standard input."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Callable, Iterator
from typing import IO

from nanocap.errors import ImageError, OptionError

STANDARD_INPUT = "-"
MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
CHUNK = 1 << 16
LONGEST = 1 << 16  # bytes of one name in a list; no file system has longer ones

Refused = Callable[[str, ImageError], None]  # told what cannot be captioned, and why


def find(path: str, refused: Refused, *, null: bool = False) -> Iterator[str]:
    """Photos that a PATH stands for; `null`: names on standard input end with a NUL byte."""
    if path == STANDARD_INPUT:
        yield from _listed(refused, null)
    elif os.path.isdir(path):
        yield from _in_folder(path, refused)
    else:
        yield path


def _in_folder(folder: str, refused: Refused) -> Iterator[str]:
    from nanocap.image.formats import SUFFIXES, photos_in  # Pillow: not before it is needed

    count = 0

    def fail(name: str, message: str) -> None:
        nonlocal count
        count += 1
        refused(name, ImageError(f"{name}: {message}"))

    def unreadable(error: OSError) -> None:
        denied = "; check its access rights" if isinstance(error, PermissionError) else ""
        fail(os.fsdecode(error.filename), f"cannot be read ({error.strerror}){denied}")

    for photo in photos_in(folder, unreadable):
        count += 1
        yield photo
    if not count:
        known = ", ".join(sorted(SUFFIXES))
        fail(folder, f"no photos in this folder; nanocap looks for {known}")


def _listed(refused: Refused, null: bool) -> Iterator[str]:
    """Names from standard input, each as soon as it is there. They are bytes of the file system."""
    file = getattr(sys.stdin, "buffer", None)
    if file is None:
        raise OptionError("standard input is closed: there is no list of paths to read")
    for place, name in enumerate(_names(file, b"\0" if null else b"\n"), start=1):
        where = f"standard input, name {place}"
        if len(name) > LONGEST:
            refused(where, ImageError(f"{where}: longer than any path; end each name with a line"))
            continue
        if b"\0" in name:
            message = f"{where}: holds a NUL byte; with names that end with one, add --null"
            refused(where, ImageError(message))
            continue
        try:
            path = os.fsdecode(name)
        except ValueError:  # where names are Unicode
            refused(where, ImageError(f"{where}: not UTF-8; write the list as UTF-8"))
            continue
        if path:
            yield path


def _names(file: IO[bytes], end: bytes) -> Iterator[bytes]:
    """The names in a list, without their ends; one that is too long to be any is cut."""
    rest, too_long = b"", False
    for data in _read(file):
        *names, rest = (rest + data).split(end)
        for name in names:
            if not too_long:
                yield name.removesuffix(b"\r") if end == b"\n" else name
            too_long = False  # of that one, the start was given already
        if len(rest) > LONGEST:
            if not too_long:
                yield rest
            rest, too_long = b"", True
    if rest and not too_long:
        yield rest


def _read(file: IO[bytes]) -> Iterator[bytes]:
    """What comes, as soon as it comes. UTF-16, if marked, becomes bytes of the file system."""
    data = b""
    while any(mark.startswith(data) and mark != data for mark in MARKS):  # not enough to tell
        more = file.read1(CHUNK)  # type: ignore[attr-defined]
        if not more:
            break
        data += more
    if data.startswith(MARKS[1:]):  # such as from PowerShell
        decoder = codecs.getincrementaldecoder("utf-16")(errors="replace")
        while data:
            yield os.fsencode(decoder.decode(data))
            data = file.read1(CHUNK)  # type: ignore[attr-defined]
        return
    data = data.removeprefix(codecs.BOM_UTF8)
    while data:
        yield data
        data = file.read1(CHUNK)  # type: ignore[attr-defined]
