"""Photos to probe with: from folders, files and WebDataset shards, or drawn from a seed."""

from __future__ import annotations

import errno
import os
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from nanocap.convert.errors import ConversionError
from nanocap.errors import ImageError
from nanocap.image.formats import SUFFIXES, photos_in
from nanocap.image.image import load_image
from nanocap.image.rule import ImageRule

T = TypeVar("T")

MAX_MEMBER_BYTES = 64 << 20  # 64 MiB, of one photo in a shard
COARSE = 6  # blobs along a side
GRAIN = 12.0  # of 255; without it flat areas make equal tokens, which merging may pair either way


@dataclass(frozen=True)
class Photo:
    """Where a photo is: a file, or a member of a tar shard."""

    path: Path
    member: str | None = None

    def read(self, rule: ImageRule) -> npt.NDArray[np.uint8]:
        """Its pixels as the encoder takes them. Raises ImageError."""
        if self.member is None:
            return load_image(self.path, rule)
        try:
            with tarfile.open(self.path) as shard:
                file = shard.extractfile(self.member)  # never unpacked to disk
                data = file.read(MAX_MEMBER_BYTES) if file else b""
        except (tarfile.TarError, KeyError, OSError) as error:
            raise ImageError(f"{self.path}: {self.member}: cannot be read ({error})") from None
        return load_image(data, rule)


def find_photos(sources: Iterable[str | os.PathLike[str]]) -> list[Photo]:
    """The photos in folders (recursive), `.tar` shards and files, in the order of their names.

    Raises:
        ConversionError: a source is missing or damaged.
    """
    return [photo for source in sources for photo in _find(Path(source))]


def load_photos(
    photos: Sequence[Photo], count: int, rule: ImageRule, *, skip: Iterable[Photo] = ()
) -> npt.NDArray[np.uint8]:
    """Pixels [at most count, size, size, 3] of photos spread evenly over all of them.

    Photos that cannot be read give their place to their neighbours; those in `skip` are left out.

    Raises:
        ConversionError: none can be read.
    """
    skipped = set(skip)
    photos = [photo for photo in photos if photo not in skipped]
    pixels: list[npt.NDArray[np.uint8]] = []
    for photo in spread(photos, count):
        try:
            pixels.append(photo.read(rule))
        except ImageError as error:
            last = error
    if photos and not pixels:
        raise ConversionError(f"none of {len(photos)} photos can be read, the last: {last}")
    if not pixels:
        return np.zeros((0, rule.size, rule.size, 3), np.uint8)
    return np.stack(pixels)


def spread(items: Sequence[T], count: int) -> list[T]:
    """`count` of the items at equal distances, or all of them."""
    if len(items) <= count:
        return list(items)
    return [items[index * len(items) // count] for index in range(count)]


def drawn_pictures(count: int, size: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """uint8 [count, size, size, 3]: blobs of colour under a little noise."""
    random = np.random.default_rng(seed)
    pictures = np.empty((count, size, size, 3), np.uint8)
    for picture in pictures:
        blobs = Image.fromarray(random.integers(0, 256, (COARSE, COARSE, 3), dtype=np.uint8))
        smooth = np.asarray(blobs.resize((size, size), Image.Resampling.BICUBIC), np.float32)
        noisy = smooth + random.normal(0, GRAIN, smooth.shape)
        picture[:] = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
    return pictures


def _refused(error: OSError) -> None:
    if error.errno == errno.EINVAL:  # a named pipe or the like: no photo to calibrate on
        return
    raise ConversionError(f"{error.filename}: cannot be listed ({error.strerror})") from error


def _find(source: Path) -> list[Photo]:
    if source.is_dir():
        found = [*map(Path, photos_in(str(source), _refused)), *source.rglob("*.tar")]
        return [photo for path in sorted(found) if path.is_file() for photo in _find(path)]
    if not source.is_file():
        raise ConversionError(f"{source}: no such photo, folder or shard; check the path")
    if source.suffix.lower() != ".tar":
        return [Photo(source)]
    try:
        with tarfile.open(source) as shard:
            return [
                Photo(source, member.name)
                for member in shard
                if member.isfile() and os.path.splitext(member.name)[1].lower() in SUFFIXES
            ]
    except (tarfile.TarError, OSError) as error:
        raise ConversionError(f"{source}: not a tar shard that can be read ({error})") from None
