"""The photos to label, looked through before anything is asked of a teacher."""

from __future__ import annotations

import glob
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

from PIL import Image

from nanocap.distill.augment import decode
from nanocap.distill.labelling.stores import Sample, Store, open_store
from nanocap.distill.sources import IMAGE_SUFFIXES, texts
from nanocap.errors import DataError, ImageError
from nanocap.formats import SUFFIXES, open_image

STORED = {"JPEG": "jpg", "MPO": "jpg", "WEBP": "webp", "PNG": "png"}  # suffix by format
FIELDS = (*IMAGE_SUFFIXES, *sorted(suffix[1:] for suffix in SUFFIXES))  # most wanted first


@dataclass(frozen=True)
class Photo:
    """A photo as it is stored.

    Attributes:
        data: encoded; empty where the sample has no image.
        originals: texts that it came with.
        broken: why it cannot be used; empty where it can.
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
    """All photos of some shards and folders in one fixed order.

    Args:
        patterns: globs of plain `.tar` files or of folders; those of each in the order of their
            names.
        original: keys of a `.json` that hold the texts a photo came with; a photo may lack them.
    Raises:
        DataError: nothing matches, a file is no tar or is cut off, or a key is not its own.
    """

    def __init__(self, patterns: Sequence[str], original: Sequence[str] = ()):
        self.original = tuple(original)
        self.stores: list[Store] = []
        for pattern in patterns:
            paths = sorted(glob.glob(pattern))
            if not paths:
                raise DataError(f"no file matches {pattern}")
            self.stores += [open_store(Path(path)) for path in paths]
        if not len(self):
            raise DataError(f"{', '.join(patterns)}: no photos in it")

    def __len__(self) -> int:
        return sum(store.count for store in self.stores)

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(store.count for store in self.stores))

    def read(self, first: int, count: int) -> Iterator[Photo]:
        """`count` photos from the `first`-th on, across stores.

        Raises:
            DataError: a shard cannot be read any more.
        """
        for store, end in zip(self.stores, self._ends, strict=True):
            if count > 0 and first < end:
                skip = first - (end - store.count)
                taken = min(count, end - first)
                yield from map(self._photo, islice(store.samples(skip), taken))
                first, count = first + taken, count - taken

    def _photo(self, sample: Sample) -> Photo:
        image = next((sample.files[name] for name in FIELDS if name in sample.files), None)
        try:
            data = image() if image else b""
        except OSError as error:
            return Photo(sample.key, b"", broken=f"cannot be read ({error.strerror or error})")
        if not self.original or "json" not in sample.files:
            return Photo(sample.key, data)
        try:
            row: Any = json.loads(sample.files["json"]())
            originals = tuple(text for name in self.original for text in texts(row.get(name)))
        except (OSError, ValueError, AttributeError, TypeError, RecursionError):
            return Photo(sample.key, data, broken="its .json cannot be read")
        return Photo(sample.key, data, originals)


def open_photo(photo: Photo) -> Opened:
    """The photo decoded, RGB."""
    if photo.broken or not photo.data:
        return Opened(photo, reason=photo.broken or "has no image")
    try:
        image = decode(photo.data)
        with open_image(io.BytesIO(photo.data), photo.key) as stored:
            suffix = STORED[stored.format or ""]
        return Opened(photo, suffix, image)
    except KeyError:
        return Opened(photo, reason="is neither JPEG, PNG nor WebP")
    except ImageError:
        return Opened(photo, reason="is no photo that can be read")
