"""Writing a bundle in one step, as a folder or a zip: it is there whole, or it is not there."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from nanocap.bundle.bundle import MANIFEST, Bundle
from nanocap.bundle.manifest import FileRecord, Manifest
from nanocap.errors import BundleError
from nanocap.files.folder_writer import check_target, write_folder
from nanocap.files.whole_file import whole_file

EPOCH = (1980, 1, 1, 0, 0, 0)  # the same bundle gives the same bytes


def write_bundle(
    target: str | os.PathLike[str],
    manifest: Manifest,
    files: Mapping[str, bytes | Path],
    *,
    overwrite: bool = False,
) -> Path:
    """Write the bundle folder `target`.

    It is there whole or not at all: see `files.folder_writer`.

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
    target = check_target(target, MANIFEST, "bundle", overwrite=overwrite)
    return write_folder(target, _recorded(manifest, files))


def write_zip(bundle: str | os.PathLike[str], target: str | os.PathLike[str]) -> Path:
    """The bundle folder `bundle`, checked file by file, as one zip at `target`.

    The same bundle gives the same bytes. A run that is killed leaves nothing at `target`.
    """
    import zipfile  # slow to import and seldom needed

    source, path = Bundle(bundle), Path(target)
    with (
        whole_file(path) as partial,
        zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
    ):
        for name in (MANIFEST, *sorted(source.manifest.files)):
            data = source.manifest.to_json() if name == MANIFEST else source.read(name)
            info = zipfile.ZipInfo(name, EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(info, data)
    return path


def _recorded(manifest: Manifest, files: Mapping[str, bytes | Path]) -> Iterator[tuple[str, bytes]]:
    """Each file with its bytes, and the manifest that records them last."""
    records = {}
    for path, content in sorted(files.items()):
        data = content if isinstance(content, bytes) else _read(content)
        yield path, data
        records[path] = FileRecord(len(data), hashlib.sha256(data).hexdigest())
    data = replace(manifest, files=records).to_json()
    Manifest.from_json(data)  # what no reader would take is not written
    yield MANIFEST, data


def _read(path: Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be put in the bundle ({error.strerror})") from None
