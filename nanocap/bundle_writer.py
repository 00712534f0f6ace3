"""Writing a bundle in one step: it is there whole, or it is not there."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from nanocap.bundle import MANIFEST
from nanocap.errors import BundleError, OptionError
from nanocap.manifest import FileRecord, Manifest, safe_path


def write_bundle(
    target: str | os.PathLike[str],
    manifest: Manifest,
    files: Mapping[str, bytes | Path],
    *,
    overwrite: bool = False,
) -> Path:
    """Write the bundle folder `target`.

    Everything is built in a temporary folder beside it, flushed to disk and renamed, so that a
    run that is killed leaves nothing under the final name.

    Args:
        target: the folder to make.
        manifest: its `files` are replaced by the sizes and hashes of what is written.
        files: every file but `manifest.json`, by path in the bundle: its bytes, or a file to copy.
        overwrite: replace a bundle that is there.

    Returns:
        `target` as a Path.

    Raises:
        OptionError: `target` is there and `overwrite` is false, or it is no bundle.
        BundleError: a path is unsafe or the manifest's parts do not agree.
    """
    target = Path(os.path.abspath(target))
    if target.exists() and not overwrite:
        raise OptionError(f"{target}: is there already; choose another name or allow overwriting")
    if target.exists() and not (target / MANIFEST).is_file():
        raise OptionError(f"{target}: is no bundle, so it is not replaced; choose another name")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(".partial", f".{target.name}.", target.parent))
    try:
        partial.chmod(0o755)  # mkdtemp makes it private; a bundle is to be read by others
        records = {}
        for path, content in sorted(files.items()):
            data = content if isinstance(content, bytes) else _read(content)
            _write(partial / safe_path(path), data)
            records[path] = FileRecord(len(data), hashlib.sha256(data).hexdigest())
        complete = replace(manifest, files=records)
        data = complete.to_json()
        Manifest.from_json(data)  # what no reader would take is not written
        _write(partial / MANIFEST, data)
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


def _read(path: Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be put in the bundle ({error.strerror})") from None


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
