"""Writing a folder in one step: it is there whole, or it is not there."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from nanocap.bundle.manifest import safe_path
from nanocap.errors import OptionError


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
    run that is killed leaves nothing under the final name.

    Args:
        files: taken one by one, so that only one need be in memory.

    Raises:
        BundleError: a path is unsafe.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(".partial", f".{target.name}.", target.parent))
    try:
        partial.chmod(0o755)  # mkdtemp makes it private; the folder is to be read by others
        for path, data in files:
            _write(partial / safe_path(path), data)
        old = None
        if target.exists():
            old = partial.with_suffix(".old")
            target.rename(old)
        partial.rename(target)
        if old is not None:
            shutil.rmtree(old)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
