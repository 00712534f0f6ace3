"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nanocap.errors import BundleError, OptionError


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


def check_target(
    target: str | os.PathLike[str], mark: str, kind: str, *, overwrite: bool = False
) -> Path:
    """The absolute path of a folder that may be written.

    Args:
        mark: a file that a folder of this kind holds: nothing else is ever replaced.
        kind: what such a folder is called in messages.

    Raises:
        OptionError: `target` is there and `overwrite` is false, or it is of another kind.
    """
    target = Path(os.path.abspath(target))
    if target.exists() and not overwrite:
        raise OptionError(f"{target}: already exists; choose another name or allow overwriting")
    if target.exists() and not (target / mark).is_file():
        raise OptionError(f"{target}: is no {kind}, so it is not replaced; choose another name")
    return target


def write_folder(target: Path, files: Iterable[tuple[str, bytes]]) -> Path:
    """Write `files`, paths inside and bytes, as the folder `target`, replacing what is there.

    Everything is built in a temporary folder beside it, flushed to disk and renamed, so that a
    run that is killed leaves nothing under the final name. Only one of `files` need be in memory.

    Raises:
        BundleError: a path is unsafe.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(".partial", f".{target.name}.", target.parent))
    try:
        partial.chmod(0o755)  # mkdtemp makes it private; the folder is to be read by others
        for name, data in files:
            path = partial / safe_path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        old = partial.with_suffix(".old")
        if target.exists():
            target.rename(old)
        partial.rename(target)
        if old.exists():
            shutil.rmtree(old)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def safe_path(path: str, where: str = "manifest.json") -> str:
    """`path` if it is relative, POSIX, plain and stays inside; else BundleError."""
    parts = path.split("/")
    unsafe = (
        any(part in ("", ".", "..") or part != part.strip() for part in parts)
        or any(c in '\\:*?"<>|' or not c.isprintable() for c in path)  # also drives and streams
        or len(path) > 200
    )
    if unsafe:
        raise BundleError(
            f"{where}: the path {path[:80]!r} leaves the bundle or is not a plain relative path;"
            " do not use this bundle, get it again from its origin"
        )
    return path
