"""A bundle: a folder, or the same in one `.zip`, that holds everything a caption needs.

Nothing in it is trusted before its size and SHA-256 have been compared with the manifest. Bytes
are read once, checked, and handed on from memory, so that what was checked is what is used. A zip
is never unpacked to disk.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from nanocap.bundle.manifest import Artifact, FileRecord, Manifest
from nanocap.bundle.stores import open_store
from nanocap.errors import BundleError, OptionError, one_line

MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 4 << 20  # 4 MiB
DEFAULT_NAME = "nano-s"


class Bundle:
    """An opened bundle: its manifest, and its files on demand, each checked as it is read.

    Raises BundleError on a manifest that is missing, damaged or unsafe.
    """

    def __init__(self, source: str | os.PathLike[str]) -> None:
        try:
            self.source = Path(source)
        except TypeError:
            raise OptionError(f"a bundle is a folder or a .zip, not {source!r}") from None
        self._store = open_store(self.source)
        self.where = f"bundle {one_line(self.source)}"
        data = self._store.read(MANIFEST, MAX_MANIFEST_BYTES)
        self.manifest = Manifest.from_json(data, f"{self.where}: {MANIFEST}")

    def __reduce__(self) -> tuple[Any, ...]:
        return Bundle, (self.source,)

    def read(self, path: str) -> bytes:
        """The bytes of a file that the manifest lists, after comparing size and SHA-256."""
        record = self.manifest.files.get(path)
        if record is None:
            raise BundleError(f"{self.where}: {path} is not in the manifest; build it again")
        data = self._store.read(path, record.bytes)
        found = FileRecord(len(data), hashlib.sha256(data).hexdigest())
        if found != record:
            what = (
                f"has {found.bytes} bytes instead of {record.bytes}"
                if found.bytes != record.bytes
                else "differs from its SHA-256"
            )
            raise BundleError(
                f"{self.where}: {path} {what}; it was altered or damaged, get the bundle again"
            )
        return data

    def load(self, artifact: Artifact) -> dict[str, bytes]:
        """All that `artifact` needs, by path, and a check of everything else that all share.

        The files of other artifacts are left alone: they are checked when they are used.
        """
        mine = set(artifact.files.values())
        others = {path for a in self.manifest.artifacts for path in a.files.values()} - mine
        contents = {}
        for path in self.manifest.files:
            if path not in others:
                data = self.read(path)
                if path in mine:
                    contents[path] = data
        return contents

    def unlisted(self) -> list[str]:
        """Files in the folder or zip that the manifest does not name; they are never read."""
        known = {MANIFEST, *self.manifest.files}
        return [path for path in self._store.paths() if path not in known]


def default_bundle() -> Path:
    """The folder of the model inside the package."""
    return Path(__file__).parents[1] / "models" / DEFAULT_NAME
