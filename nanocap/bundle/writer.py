"""Writing a bundle in one step: it is there whole, or it is not there."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from nanocap.bundle.bundle import MANIFEST
from nanocap.bundle.manifest import FileRecord, Manifest
from nanocap.errors import BundleError
from nanocap.files.whole_file import check_target, write_folder


def write_bundle(
    target: str | os.PathLike[str],
    manifest: Manifest,
    files: Mapping[str, bytes | Path],
    *,
    overwrite: bool = False,
) -> Path:
    """Write the bundle folder `target`, and return it as a Path.

    Args:
        manifest: its `files` are replaced by the sizes and hashes of what is written.
        files: every file but `manifest.json`, by path in the bundle: its bytes, or a file to copy.
        overwrite: replace a bundle that is there.

    Raises:
        OptionError: `target` is there and `overwrite` is false, or it is no bundle.
        BundleError: a path is unsafe or the manifest's parts do not agree.
    """
    target = check_target(target, MANIFEST, "bundle", overwrite=overwrite)
    return write_folder(target, _recorded(manifest, files))


def _recorded(manifest: Manifest, files: Mapping[str, bytes | Path]) -> Iterator[tuple[str, bytes]]:
    """Each file with its bytes, and the manifest that records them last."""
    records = {}
    for path, content in sorted(files.items()):
        try:
            data = content if isinstance(content, bytes) else content.read_bytes()
        except OSError as error:
            message = f"{content!s}: cannot be put in the bundle ({error.strerror})"
            raise BundleError(message) from None
        yield path, data
        records[path] = FileRecord(len(data), hashlib.sha256(data).hexdigest())
    data = replace(manifest, files=records).to_json()
    Manifest.from_json(data)  # what no reader would take is not written
    yield MANIFEST, data
