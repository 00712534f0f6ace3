"""The photos to label: WebDataset shards, looked through before anything is asked of a teacher."""

from __future__ import annotations

import glob
import io
import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, groupby, islice
from pathlib import Path
from typing import Any

from PIL import Image

from nanocap.distill.augment import decode
from nanocap.distill.sources import IMAGE_SUFFIXES, texts
from nanocap.errors import DataError, ImageError

SUFFIXES = {"JPEG": "jpg", "WEBP": "webp", "PNG": "png"}
_NAME = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")  # key and field, as `datasets` parts them


@dataclass(frozen=True)
class Photo:
    """A photo as its shard holds it.

    Attributes:
        data: encoded; empty where the sample has no image.
        originals: texts that it came with.
        broken: why its `.json` cannot be used; empty where it can.
    """

    key: str
    data: bytes
    originals: tuple[str, ...] = ()
    broken: str = ""


@dataclass(frozen=True)
class Opened:
    """A photo that could be decoded, or why it could not."""

    photo: Photo
    suffix: str = ""
    image: Image.Image | None = None
    reason: str = ""


class PhotoShards:
    """All photos of some shards in one fixed order.

    Args:
        patterns: globs of plain `.tar` files; the files of each in the order of their names.
        original: keys of a `.json` that hold the texts a photo came with; a photo may lack them.
    Raises:
        DataError: nothing matches, a file is no tar or is cut off, or a key is not its own.
    """

    def __init__(self, patterns: Sequence[str], original: Sequence[str] = ()):
        self.original = tuple(original)
        self.files: list[Path] = []
        for pattern in patterns:
            files = [Path(name) for name in sorted(glob.glob(pattern))]
            if not files:
                raise DataError(f"no file matches {pattern}")
            self.files += files
        self.counts = [_count(path) for path in self.files]
        if not sum(self.counts):
            raise DataError(f"{', '.join(patterns)}: no photos in it")

    def __len__(self) -> int:
        return sum(self.counts)

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(self.counts))

    def read(self, first: int, count: int) -> Iterator[Photo]:
        """`count` photos from the `first`-th on, across files.

        Raises:
            DataError: a file cannot be read any more.
        """
        for path, end, held in zip(self.files, self._ends, self.counts, strict=True):
            if count > 0 and first < end:
                skip = first - (end - held)
                taken = min(count, end - first)
                yield from islice(self._photos(path, skip), taken)
                first, count = first + taken, count - taken

    def _photos(self, path: Path, skip: int) -> Iterator[Photo]:
        try:
            with tarfile.open(path, "r:") as tar:
                for key, fields in islice(_samples(tar), skip, None):
                    yield self._photo(tar, key, fields)
        except (OSError, tarfile.TarError) as error:
            raise DataError(f"{path}: cannot be read ({error})") from error

    def _photo(self, tar: tarfile.TarFile, key: str, fields: dict[str, tarfile.TarInfo]) -> Photo:
        image = next((fields[name] for name in IMAGE_SUFFIXES if name in fields), None)
        data = _data(tar, image) if image else b""
        if not self.original or "json" not in fields:
            return Photo(key, data)
        try:
            row: Any = json.loads(_data(tar, fields["json"]))
            originals = tuple(text for name in self.original for text in texts(row.get(name)))
        except (ValueError, AttributeError, TypeError, RecursionError):
            return Photo(key, data, broken="its .json cannot be read")
        return Photo(key, data, originals)


def open_photo(photo: Photo) -> Opened:
    """The photo decoded, RGB."""
    if photo.broken or not photo.data:
        return Opened(photo, reason=photo.broken or "has no image")
    try:
        image = decode(photo.data)
        with Image.open(io.BytesIO(photo.data)) as stored:
            suffix = SUFFIXES[stored.format or ""]
        return Opened(photo, suffix, image)
    except KeyError:
        return Opened(photo, reason="is neither JPEG, PNG nor WebP")
    except ImageError:
        return Opened(photo, reason="is no photo that can be read")


def _count(path: Path) -> int:
    """How many samples a shard has.

    Python reads a tar that is cut off, or that turns into something else, up to there and says
    nothing; only the mark at its end tells that it is whole.
    """
    try:
        with tarfile.open(path, "r:") as tar, path.open("rb") as file:
            keys = [key for key, _ in _samples(tar)]
            file.seek(tar.offset)
            end = file.read(2 * tarfile.BLOCKSIZE)
    except (OSError, tarfile.TarError) as error:
        raise DataError(f"{path}: not a tar that can be read ({error})") from error
    if len(end) < 2 * tarfile.BLOCKSIZE or any(end):
        raise DataError(f"{path}: damaged or cut off after {len(keys)} photos; copy it again")
    if len(set(keys)) != len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise DataError(f"{path}: the files of {twice} do not stand together, or stand twice")
    return len(keys)


def _samples(tar: tarfile.TarFile) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
    """Key and files by field of each sample: neighbours of one key."""
    parted = ((_NAME.match(entry.name), entry) for entry in tar if entry.isfile())
    named = ((found.group(1), found.group(2), entry) for found, entry in parted if found)
    for key, files in groupby(named, key=lambda one: one[0]):
        yield key, {field.lower(): entry for _, field, entry in files}


def _data(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(entry)
    return file.read() if file is not None else b""
