"""Rows that name a photo and its captions: which columns, in tables, shards and files of captions.

One rule for all that is read: a column may stand under any name of its kind, and a cell of captions
is a text or a list of texts.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanocap.errors import DataError
from nanocap.files.regular_file import read_file

IMAGE, CAPTIONS = "image", "captions"  # what recipes call them unless they say otherwise
KINDS = (
    (IMAGE, "file_name", "path"),  # `file_name` and `text` in image folders of Hugging Face
    (CAPTIONS, "caption", "text"),
)


@dataclass(frozen=True)
class Captioned:
    """A line of a file of captions."""

    name: str  # of the photo: a key, or a path
    texts: tuple[str, ...]  # best first, each on one line; one that is empty stays


def names_of(column: str) -> tuple[str, ...]:
    """The names that a column may have, the given one first."""
    kind = next((names for names in KINDS if column in names), ())
    return (column, *(name for name in kind if name != column))


def has(row: Mapping[str, Any], column: str) -> bool:
    """Whether a row has a column, by any of its names."""
    return any(name in row for name in names_of(column))


def cell(row: Mapping[str, Any], column: str) -> Any:
    """What stands in a column, by the first of its names where there is something; else None."""
    found = (row.get(name) for name in names_of(column))
    return next((value for value in found if value not in (None, "", [])), None)


def texts(value: Any) -> tuple[str, ...]:
    """The texts of a cell, which is a text, a list of them, or nothing; empty ones passed over."""
    several = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return tuple(text.strip() for text in several if isinstance(text, str) and text.strip())


def read_captions(path: Path) -> Iterator[Captioned]:
    """The lines of a file of captions, as `nanocap caption --json` and `nanocap eval` write them.

    JSON lines: the photo in the column `image`, its captions in `captions`, and what else it might
    be called in `alternatives`. Lines with `error` instead of captions are passed over.

    Raises:
        DataError: the file cannot be read, or a line of it is something else.
    """
    for row, where in read_rows(path):
        found = _captioned(row, where)
        if found is not None:
            yield found


def read_rows(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """The objects of a file of JSON lines, or of one JSON list, and where each stands.

    Raises:
        DataError: the file cannot be read, or holds something else.
    """
    try:
        data = read_file(path)
        # PowerShell's `>` writes UTF-16, with a mark.
        marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = data.decode("utf-16" if marked else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: captions cannot be read ({error})") from error
    if text.lstrip().startswith("["):
        several = _json(text, str(path))
        rows = [(row, f"{path}, entry {number}") for number, row in enumerate(several, 1)]
    else:
        # not `splitlines`, for which a caption may hold the end of a line
        lines = ((line, f"{path}, line {n}") for n, line in enumerate(text.split("\n"), 1))
        rows = [(_json(line, where), where) for line, where in lines if line.strip()]
    for row, where in rows:
        if not isinstance(row, dict):
            raise DataError(
                f'{where}: not an object such as {{"image": "a.jpg", "caption": "..."}}'
            )
        yield row, where


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error})") from error


def _captioned(row: dict[str, Any], where: str) -> Captioned | None:
    name = cell(row, IMAGE)
    if not isinstance(name, str):
        raise DataError(f'{where}: needs "image", the key or the path of a photo')
    if not has(row, CAPTIONS) and "error" in row:
        return None
    found = cell(row, CAPTIONS)
    if found is None and has(row, CAPTIONS):
        found = ""  # there is nothing to say
    several = found if isinstance(found, list) else [found]
    if not all(isinstance(text, str) for text in several):
        raise DataError(f'{where}: needs "caption", a text, or "captions", a list of texts')
    more = row.get("alternatives")
    more = more if isinstance(more, list) else []
    others = [str(one["caption"]) for one in more if isinstance(one, dict) and "caption" in one]
    return Captioned(name, tuple(" ".join(text.split()) for text in [*several, *others]))
