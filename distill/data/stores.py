"""Where photos lie: in WebDataset shards, or as files of a folder, which counts as one unpacked."""

from __future__ import annotations

import errno
import json
import os
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Protocol

from nanocap.distill.data.keys import photo_key
from nanocap.distill.data.rows import CAPTIONS
from nanocap.errors import DataError
from nanocap.files.regular_file import read_file
from nanocap.image.formats import SUFFIXES, photos_in

COMMON = ("webp", "jpg", "jpeg", "png")  # fields of photos, most wanted first
FIELDS = dict.fromkeys((*COMMON, *sorted(suffix[1:] for suffix in SUFFIXES)))
BESIDE = ("json", "txt")  # fields of what stands beside a photo
_NAME = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")  # key and field, as `datasets` parts them


@dataclass(frozen=True)
class Sample:
    """The files of one key.

    Attributes:
        files: by their field, which is the suffix in lower case, what reads each. It raises OSError
            where that file alone cannot be read, DataError where the store cannot.
        path: of the photo, as others may call it; empty where it has none.
    """

    key: str
    files: Mapping[str, Callable[[], bytes]]
    path: str = ""

    @property
    def field(self) -> str:
        """Of its photo; empty where it has none."""
        return photo_field(self.files)

    def texts(self) -> Mapping[str, Any] | None:
        """What stands beside the photo: the table in its `.json`, or the lines of its `.txt`.

        Raises:
            OSError: it cannot be read.
            ValueError: the `.json` is no table.
        """
        if "json" in self.files:
            row = json.loads(self.files["json"]())
            if not isinstance(row, dict):
                raise ValueError("not a table")
            return row
        if "txt" in self.files:
            return {CAPTIONS: self.files["txt"]().decode("utf-8-sig").splitlines()}
        return None


def photo_field(fields: Collection[str]) -> str:
    """The one of a photo, the most wanted where several are; empty where none is."""
    return next((name for name in FIELDS if name in fields), "")


class Store(Protocol):
    """Samples in one fixed order.

    Attributes:
        size: bytes of all of it. count: samples.
        keys: of the samples, as the store itself has them. suffixes: of their photos, without dot.
    """

    path: Path
    size: int
    count: int
    keys: list[str]
    suffixes: list[str]

    def samples(self, skip: int) -> Iterator[Sample]:
        """Those after the first `skip`. Raises DataError: it cannot be read any more."""
        ...


class TarStore:
    """A plain `.tar`.

    Raises:
        DataError: it is none or is cut off, or the files of a key are apart.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self.size = path.stat().st_size
            with tarfile.open(path, "r:") as tar, path.open("rb") as file:
                parted = [(key, photo_field(files)) for key, files in _parted(tar)]
                file.seek(tar.offset)
                end = file.read(2 * tarfile.BLOCKSIZE)
        except (OSError, tarfile.TarError) as error:
            raise DataError(
                f"{path}: not a tar that can be read ({error}); name WebDataset shards, or folders"
            ) from error
        self.keys, self.suffixes = [key for key, _ in parted], [field for _, field in parted]
        keys = self.keys
        # Python reads a tar that is cut off, or that turns into something else, up to there and
        # says nothing; only the mark at its end tells that it is whole.
        if len(end) < 2 * tarfile.BLOCKSIZE or any(end):
            raise DataError(f"{path}: damaged or cut off after {len(keys)} photos; copy it again")
        # Two photos may have one key. A photo and its texts apart would be a photo without texts.
        counts = Counter(keys)
        apart = next((key for key, field in parted if counts[key] > 1 and not field), None)
        if apart is not None:
            raise DataError(f"{path}: the files of {apart} are not adjacent; write them in a row")
        self.count = len(keys)

    def samples(self, skip: int) -> Iterator[Sample]:
        """As `Store` says."""
        try:
            with tarfile.open(self.path, "r:") as tar:
                for key, entries in islice(_parted(tar), skip, None):
                    files = {name: self._reader(tar, entry) for name, entry in entries.items()}
                    field = photo_field(files)
                    yield Sample(key, files, f"{key}.{field}" if field else "")
        except (OSError, tarfile.TarError) as error:
            raise self._lost(error) from error

    def _reader(self, tar: tarfile.TarFile, entry: tarfile.TarInfo) -> Callable[[], bytes]:
        def read() -> bytes:
            try:
                file = tar.extractfile(entry)
                return file.read() if file is not None else b""
            except (OSError, tarfile.TarError) as error:
                raise self._lost(error) from error

        return read

    def _lost(self, error: Exception) -> DataError:
        return DataError(f"{self.path}: cannot be read ({error})")


class FolderStore:
    """The photos in a folder and below it, each with the `.json` or `.txt` of its name, if one is.

    Keys are as `nanocap.distill.data.keys.photo_key` makes them, so two photos may have one: a
    photo of such a name that is a key already comes first. Hidden files and folders are passed
    over.

    Raises:
        DataError: a folder cannot be listed.
    """

    def __init__(self, path: Path):
        self.path = path
        found = []
        for photo in _photos(path):
            relative = os.fsencode(photo.relative_to(path).as_posix()).decode(errors="replace")
            key = photo_key(relative)
            found.append((key, key != os.path.splitext(relative)[0], relative, photo))
        self._found = [(key, name, photo) for key, _, name, photo in sorted(found)]
        self.keys = [key for key, _, _ in self._found]
        self.suffixes = [_suffix(photo) for _, _, photo in self._found]
        self.count = len(self._found)
        photos = [photo for *_, photo in found]
        files = [file for photo in photos for file in (photo, *_beside(photo).values())]
        self.size = sum(map(_size, files))

    def samples(self, skip: int) -> Iterator[Sample]:
        """As `Store` says."""
        for key, name, photo in self._found[skip:]:
            files = {_suffix(photo): photo, **_beside(photo)}
            readers = {field: partial(read_file, file) for field, file in files.items()}
            yield Sample(key, readers, name)


def open_store(path: Path) -> Store:
    """The store at a path: a folder, or a file that must be a shard."""
    return FolderStore(path) if path.is_dir() else TarStore(path)


def _photos(folder: Path) -> Iterator[Path]:
    """Files that are photos by their suffix, among them those that cannot be read."""
    odd: list[Path] = []

    def refused(error: OSError) -> None:
        if error.errno != errno.EINVAL:
            raise DataError(f"{error.filename}: cannot be listed ({error.strerror})") from error
        odd.append(Path(error.filename))  # such as a named pipe: left out when its turn comes

    yield from map(Path, photos_in(str(folder), refused))
    yield from odd


def _beside(photo: Path) -> dict[str, Path]:
    """By field, what has its name and tells of it."""
    named = {field: photo.with_suffix(f".{field}") for field in BESIDE}
    return {field: path for field, path in named.items() if path.is_file()}


def _suffix(photo: Path) -> str:
    return photo.suffix.lower().removeprefix(".")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # such a photo is left out, with the reason, when its turn comes
        return 0


def _parted(tar: tarfile.TarFile) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
    """Key and entries by field of each sample: neighbours of one key."""
    parted = ((_NAME.match(entry.name), entry) for entry in tar if entry.isfile())
    named = ((found.group(1), found.group(2), entry) for found, entry in parted if found)
    for key, files in groupby(named, key=lambda one: one[0]):
        yield key, {field.lower(): entry for _, field, entry in files}
