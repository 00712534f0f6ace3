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

IMAGE, CAPTIONS = "image", "captions"  # what recipes call them unless they say otherwise
KINDS = (
    (IMAGE, "file_name", "path"),  # `file_name` and `text` in image folders of Hugging Face
    (CAPTIONS, "caption", "text"),
)


@dataclass(frozen=True)
class Captioned:
    """A line of a file of captions.

    Attributes:
        name: of the photo: a key, or a path.
        texts: best first, each on one line; one that is empty stays.
    """

    name: str
    texts: tuple[str, ...]


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
    several = [value] if isinstance(value, str) else list(value or ())
    return tuple(text.strip() for text in several if isinstance(text, str) and text.strip())


def read_captions(path: Path) -> Iterator[Captioned]:
    """The lines of a file of captions, as `nanocap caption --json` and `nanocap eval` write them.

    JSON lines: the photo in the column `image`, its captions in `captions`, and what else it might
    be called in `alternatives`. Lines with `error` instead of captions are passed over.

    Raises:
        DataError: the file cannot be read, or a line of it is something else.
    """
    try:
        data = path.read_bytes()
        # PowerShell's `>` writes UTF-16, with a mark.
        marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        # not `splitlines`, for which a caption may hold the end of a line
        lines = data.decode("utf-16" if marked else "utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: captions cannot be read ({error})") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            found = _captioned(line, f"{path}, line {number}")
            if found is not None:
                yield found


def _captioned(line: str, where: str) -> Captioned | None:
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error})") from error
    name = cell(row, IMAGE) if isinstance(row, dict) else None
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
    more = row.get("alternatives") or []
    others = [str(one["caption"]) for one in more if isinstance(one, dict) and "caption" in one]
    return Captioned(name, tuple(" ".join(text.split()) for text in [*several, *others]))
