"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nanocap.errors import OptionError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to: it takes its place at the end, and goes if the block fails.

    What a killed process leaves is hidden, and the next one writes over it. For files that one
    process at a time writes. The folders above it are made.

    Raises:
        OptionError: a folder, or a device, stands at `path`.
    """
    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "no regular file"
        raise OptionError(f"{path}: is {what}; name a file to write")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
