"""Documents of every kind: how each is opened, and those of a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

from nanocap.errors import DataError
from nanocap.runtime.alt.book import Book
from nanocap.runtime.alt.document import FORMATS, Document

AnyDocument: TypeAlias = Document | Book

KINDS: dict[str, Callable[[Path], AnyDocument]] = {
    **dict.fromkeys(FORMATS, Document.read),
    ".epub": Book.read,
}
NOT_LOOKED_INTO = ("node_modules", "__pycache__")  # nor hidden folders


def open_document(path: Path) -> AnyDocument:
    """Open a document.

    Raises:
        DataError: it cannot be read, is damaged or too large, or is of a kind that is not known.
    """
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        known = ", ".join(sorted(KINDS))
        raise DataError(f"{path}: no document of a known kind; known are {known}")
    return kind(path)


def documents_in(folder: Path) -> Iterator[Path]:
    """Documents of a folder and of the folders in it, by name."""
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if name[0] != "." and name not in NOT_LOOKED_INTO
        )
        for name in sorted(names):
            if name[0] != "." and Path(name).suffix.lower() in KINDS:
                yield Path(here) / name
