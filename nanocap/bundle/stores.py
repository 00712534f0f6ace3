"""Where a bundle's files are: a folder, or one `.zip`, read in memory, with every size capped."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Protocol

from nanocap.bundle.manifest import MAX_FILES
from nanocap.errors import BundleError


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
        where, full, mode = f"bundle {self.root}: {path}", str(self.root), 0
        try:
            for part in path.split("/"):
                full = os.path.join(full, part)
                mode = os.lstat(full).st_mode
                if stat.S_ISLNK(mode):
                    raise BundleError(
                        f"{where} goes through a symbolic link; put the file itself there"
                    )
            if not stat.S_ISREG(mode):  # a pipe would block, a device never end
                raise BundleError(f"{where} is not a regular file; get it again")
            with open(full, "rb") as file:
                return _capped(file, limit, where)
        except (FileNotFoundError, NotADirectoryError):
            raise BundleError(f"{where} is missing; get or build the bundle again") from None
        except OSError as error:
            raise BundleError(
                f"{where} cannot be read ({error.strerror}); check its rights"
            ) from None

    def paths(self) -> Iterator[str]:
        for folder, _, names in sorted(os.walk(self.root)):
            for name in sorted(names):
                yield Path(folder, name).relative_to(self.root).as_posix()


class ZipStore:
    """A bundle that is a zip, its files at the top or inside one folder."""

    def __init__(self, source: Path) -> None:
        self.source = source
        if not source.is_file():  # a pipe would block, a device never end
            raise BundleError(f"bundle {source}: neither a folder nor a file; check the path")
        import zipfile  # slow to import and seldom needed

        try:
            self._zip = zipfile.ZipFile(source)
        except _broken(OSError):
            raise BundleError(
                f"bundle {source}: neither a folder nor a zip that can be read; get it again"
            ) from None
        infos = [info for info in self._zip.infolist() if not info.is_dir()]
        names = {info.filename: info for info in infos}
        if len(names) != len(infos) or len(infos) > MAX_FILES:
            raise BundleError(
                f"bundle {source}: a name appears twice, or there are too many; get it again"
            )
        tops = {name.split("/")[0] for name in names}
        prefix = "" if "manifest.json" in names or len(tops) != 1 else f"{tops.pop()}/"
        self._infos = {name.removeprefix(prefix): info for name, info in names.items()}

    def read(self, path: str, limit: int) -> bytes:
        info, where = self._infos.get(path), f"bundle {self.source}: {path}"
        if info is None:
            raise BundleError(f"{where} is missing; get or build the bundle again")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise BundleError(f"{where} is a symbolic link; get it again")
        try:
            with self._zip.open(info) as file:
                return _capped(file, limit, where)
        except _broken():
            raise BundleError(f"{where} is damaged; get it again") from None

    def paths(self) -> Iterator[str]:
        yield from sorted(self._infos)


def open_store(source: Path) -> Store:
    """The store of a bundle. Raises BundleError if there is none."""
    if source.is_dir():
        return FolderStore(source)
    if not source.exists():
        raise BundleError(f"bundle {source}: there is no such folder or .zip; check the path")
    return ZipStore(source)


def _capped(file: IO[bytes], limit: int, where: str) -> bytes:
    """Reading one byte past the limit, never more, is what stops a zip bomb."""
    data = file.read(limit + 1)
    if len(data) > limit:
        raise BundleError(f"{where} is larger than the manifest states; get it again")
    return data


def _broken(*more: type[Exception]) -> tuple[type[Exception], ...]:
    """What reading a damaged zip raises, and `more`."""
    import zipfile
    import zlib

    known = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
    return (*known, ValueError, *more)
