"""Where photos lie: in WebDataset shards, or as files of a folder, which counts as one unpacked."""

from __future__ import annotations

import os
import re
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Protocol

from nanocap.distill.sources import photo_key
from nanocap.errors import DataError
from nanocap.formats import photos_in

_NAME = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")  # key and field, as `datasets` parts them


@dataclass(frozen=True)
class Sample:
    """The files of one key.

    Attributes:
        files: by their field, which is the suffix in lower case, what reads each. It raises OSError
            where that file alone cannot be read, DataError where the store cannot.
    """

    key: str
    files: Mapping[str, Callable[[], bytes]]


class Store(Protocol):
    """Samples in one fixed order.

    Attributes:
        size: bytes of all of it. count: samples.
    """

    path: Path
    size: int
    count: int

    def samples(self, skip: int) -> Iterator[Sample]:
        """Those after the first `skip`. Raises DataError: it cannot be read any more."""
        ...


class TarStore:
    """A plain `.tar`.

    Raises:
        DataError: it is none or is cut off, or a key is not its own.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self.size = path.stat().st_size
            with tarfile.open(path, "r:") as tar, path.open("rb") as file:
                keys = [key for key, _ in _parted(tar)]
                file.seek(tar.offset)
                end = file.read(2 * tarfile.BLOCKSIZE)
        except (OSError, tarfile.TarError) as error:
            raise DataError(
                f"{path}: not a tar that can be read ({error}); name WebDataset shards, or folders"
            ) from error
        # Python reads a tar that is cut off, or that turns into something else, up to there and
        # says nothing; only the mark at its end tells that it is whole.
        if len(end) < 2 * tarfile.BLOCKSIZE or any(end):
            raise DataError(f"{path}: damaged or cut off after {len(keys)} photos; copy it again")
        if len(set(keys)) != len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise DataError(f"{path}: the files of {twice} do not stand together, or stand twice")
        self.count = len(keys)

    def samples(self, skip: int) -> Iterator[Sample]:
        """As `Store` says."""
        try:
            with tarfile.open(self.path, "r:") as tar:
                for key, entries in islice(_parted(tar), skip, None):
                    files = {name: self._reader(tar, entry) for name, entry in entries.items()}
                    yield Sample(key, files)
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
    """The photos in a folder and below it, each with the `.json` that has its name, if one has.

    Keys are as `nanocap.distill.sources.photo_key` makes them. Hidden files and folders are passed
    over.

    Raises:
        DataError: a folder cannot be listed, or two names are one key.
    """

    def __init__(self, path: Path):
        self.path = path
        found: defaultdict[str, dict[str, Path]] = defaultdict(dict)
        for photo in _photos(path):
            relative = os.fsencode(photo.relative_to(path).as_posix())
            key = photo_key(relative.decode(errors="replace"))
            field = photo.suffix.lower().removeprefix(".")
            other = next(iter(found[key].values()), photo)
            if field in found[key] or other.stem != photo.stem:
                raise DataError(
                    f"{path}: {other.name} and {photo.name} would both be {key}; rename one of them"
                )
            found[key][field] = photo
        for files in found.values():
            texts = next(iter(files.values())).with_suffix(".json")
            if texts.is_file():
                files["json"] = texts
        self._samples = sorted(found.items())
        self.count = len(self._samples)
        self.size = sum(_size(file) for files in found.values() for file in files.values())

    def samples(self, skip: int) -> Iterator[Sample]:
        """As `Store` says."""
        for key, files in self._samples[skip:]:
            yield Sample(key, {field: file.read_bytes for field, file in files.items()})


def open_store(path: Path) -> Store:
    """The store at a path: a folder, or a file that must be a shard."""
    return FolderStore(path) if path.is_dir() else TarStore(path)


def _photos(folder: Path) -> Iterator[Path]:
    """Files that are photos by their suffix, links that lead nowhere among them."""

    def refused(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be listed ({error.strerror})") from error

    for path in map(Path, photos_in(str(folder), refused)):
        if path.is_file() or not path.exists():
            yield path


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
