"""A bundle in one `.zip`: read in memory, with every size capped; written in one step."""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from nanocap.errors import BundleError
from nanocap.manifest import MAX_FILES
from nanocap.whole_file import whole_file

EPOCH = (1980, 1, 1, 0, 0, 0)  # the same bundle gives the same bytes
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)


class ZipStore:
    """A bundle that is a zip, its files at the top or inside one folder."""

    def __init__(self, source: Path) -> None:
        self.source = source
        if not source.is_file():  # a pipe would block, a device never end
            raise BundleError(f"bundle {source}: neither a folder nor a file; check the path")
        try:
            self._zip = zipfile.ZipFile(source)
        except (*BROKEN, OSError):
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
        info = self._infos.get(path)
        if info is None:
            raise BundleError(
                f"bundle {self.source}: {path} is missing; get or build the bundle again"
            )
        if stat.S_ISLNK(info.external_attr >> 16):
            raise BundleError(f"bundle {self.source}: {path} is a symbolic link; get it again")
        try:
            with self._zip.open(info) as file:
                # Reading one byte past the limit, never more, is what stops a zip bomb.
                data = file.read(limit + 1)
        except BROKEN:
            raise BundleError(f"bundle {self.source}: {path} is damaged; get it again") from None
        if len(data) > limit:
            raise BundleError(
                f"bundle {self.source}: {path} is larger than the manifest states; get it again"
            )
        return data

    def paths(self) -> Iterator[str]:
        yield from sorted(self._infos)


def write_zip(bundle: str | os.PathLike[str], target: str | os.PathLike[str]) -> Path:
    """The bundle folder `bundle`, checked file by file, as one zip at `target`.

    The same bundle gives the same bytes. A run that is killed leaves nothing at `target`.
    """
    from nanocap.bundle import MANIFEST, Bundle

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
