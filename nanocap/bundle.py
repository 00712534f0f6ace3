"""A bundle: a folder, or the same in one `.zip`, that holds everything a caption needs.

Nothing in it is trusted before its size and SHA-256 have been compared with the manifest. Bytes
are read once, checked, and handed on from memory, so that what was checked is what is used. A zip
is never unpacked to disk.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from nanocap.errors import BundleError, OptionError, one_line
from nanocap.manifest import Artifact, FileRecord, Manifest

MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
MAX_MANIFEST_BYTES = 4 << 20  # 4 MiB
DEFAULT_NAME = "nano-s"


class Store(Protocol):
    """Where a bundle's files are."""

    def read(self, path: str, limit: int) -> bytes:
        """The bytes of one file, `limit` at most. Raises BundleError if absent, longer, unsafe."""

    def paths(self) -> Iterator[str]:
        """Every file, relative, with `/`."""


class FolderStore:
    """A bundle that is a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, path: str, limit: int) -> bytes:
        full = str(self.root)
        mode = 0
        try:
            for part in path.split("/"):
                full = os.path.join(full, part)
                mode = os.lstat(full).st_mode
                if stat.S_ISLNK(mode):
                    raise BundleError(
                        f"bundle {self.root}: {path} goes through a symbolic link;"
                        " put the file itself there"
                    )
            if not stat.S_ISREG(mode):  # a pipe would block, a device never end
                raise BundleError(f"bundle {self.root}: {path} is not a regular file; get it again")
            with open(full, "rb") as file:
                data = file.read(limit + 1)
        except (FileNotFoundError, NotADirectoryError):
            raise BundleError(
                f"bundle {self.root}: {path} is missing; get or build the bundle again"
            ) from None
        except OSError as error:
            raise BundleError(
                f"bundle {self.root}: {path} cannot be read ({error.strerror}); check its rights"
            ) from None
        if len(data) > limit:
            raise BundleError(
                f"bundle {self.root}: {path} is larger than the manifest states; get it again"
            )
        return data

    def paths(self) -> Iterator[str]:
        for folder, _, names in sorted(os.walk(self.root)):
            for name in sorted(names):
                yield Path(folder, name).relative_to(self.root).as_posix()


class Bundle:
    """An opened bundle: its manifest, and its files on demand, each checked as it is read.

    Raises BundleError on a manifest that is missing, damaged or unsafe.
    """

    def __init__(self, source: str | os.PathLike[str]) -> None:
        try:
            self.source = Path(source)
        except TypeError:
            raise OptionError(f"a bundle is a folder or a .zip, not {source!r}") from None
        self._store = _store(self.source)
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
        keep = mine | {TOKENIZER}
        contents = {}
        for path in self.manifest.files:
            if path not in others:
                data = self.read(path)
                if path in keep:
                    contents[path] = data
        return contents

    def unlisted(self) -> list[str]:
        """Files in the folder or zip that the manifest does not name; they are never read."""
        known = {MANIFEST, *self.manifest.files}
        return [path for path in self._store.paths() if path not in known]


def default_bundle() -> Path:
    """The folder of the model inside the package."""
    return Path(__file__).with_name("models") / DEFAULT_NAME


def _store(source: Path) -> Store:
    if source.is_dir():
        return FolderStore(source)
    if not source.exists():
        raise BundleError(f"bundle {source}: there is no such folder or .zip; check the path")
    from nanocap.archive import ZipStore  # zipfile is slow to import and seldom needed

    return ZipStore(source)
