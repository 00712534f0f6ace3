"""The photos to label, looked through before anything is asked of a teacher."""

from __future__ import annotations

import glob
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, islice
from pathlib import Path

from PIL import Image

from nanocap.distill.data.keys import distinct
from nanocap.distill.data.rows import cell, texts
from nanocap.distill.data.stores import Sample, Store, open_store
from nanocap.errors import DataError, ImageError
from nanocap.image.formats import open_image
from nanocap.image.image import load_rgb

STORED = {"JPEG": "jpg", "MPO": "jpg", "WEBP": "webp", "PNG": "png"}  # suffix by format
LOSSY = ("HEIF", "AVIF", "JPEG2000")  # formats of photos that a JPEG does justice
JPEG_QUALITY = 95


@dataclass(frozen=True)
class Photo:
    """A photo as it is stored."""

    key: str
    data: bytes  # encoded; empty where the sample has no image
    originals: tuple[str, ...] = ()  # texts that it came with
    broken: str = ""  # why it cannot be used; empty where it can


@dataclass(frozen=True)
class Opened:
    """A photo that could be decoded, or why it could not."""

    photo: Photo
    suffix: str = ""
    image: Image.Image | None = None
    reason: str = ""


class PhotoShards:
    """All photos of some shards and folders in one fixed order, each with a key of its own.

    A key that another photo has as well is changed, see `nanocap.distill.data.keys.distinct`.

    Args:
        patterns: globs of plain `.tar` files or of folders; those of each in the order of their
            names.
        original: keys of a `.json` that hold the texts a photo came with; a photo may lack them.
    Raises:
        DataError: nothing matches, a file is no tar or is cut off, or a key stands twice in it.
    """

    def __init__(self, patterns: Sequence[str], original: Sequence[str] = ()):
        self.original = tuple(original)
        self.stores: list[Store] = []
        for pattern in patterns:
            # a folder may have a name that would be a pattern
            paths = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern))
            if not paths:
                raise DataError(f"no file matches {pattern}")
            self.stores += [open_store(Path(path)) for path in paths]
        if not len(self):
            raise DataError(f"{', '.join(patterns)}: no photos in it")
        self.keys = distinct(
            [key for store in self.stores for key in store.keys],
            [suffix for store in self.stores for suffix in store.suffixes],
        )

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
                keys = self.keys[first : first + taken]
                for key, sample in zip(keys, islice(store.samples(skip), taken), strict=True):
                    yield self._photo(replace(sample, key=key))
                first, count = first + taken, count - taken

    @cached_property
    def paths(self) -> dict[str, str]:
        """By key, the path of each photo in its store; the key again where it has none."""
        samples = (sample for store in self.stores for sample in store.samples(0))
        return {key: one.path or key for key, one in zip(self.keys, samples, strict=True)}

    @property
    def folders(self) -> list[Path]:
        """Those among the stores."""
        return [store.path for store in self.stores if store.path.is_dir()]

    def _photo(self, sample: Sample) -> Photo:
        try:
            data = sample.files[sample.field]() if sample.field else b""
        except OSError as error:
            return Photo(sample.key, b"", broken=f"cannot be read ({error.strerror or error})")
        try:
            row = (sample.texts() if self.original else None) or {}
            originals = tuple(text for name in self.original for text in texts(cell(row, name)))
        except (OSError, ValueError, TypeError, RecursionError):
            field = "json" if "json" in sample.files else "txt"
            return Photo(sample.key, data, broken=f"its .{field} cannot be read")
        return Photo(sample.key, data, originals)


def open_photo(photo: Photo) -> Opened:
    """The photo decoded, RGB, and its data in a format that shards hold.

    What is neither JPEG, PNG nor WebP is encoded anew, upright and in RGB: HEIC, AVIF and JPEG 2000
    as JPEG of quality 95 without subsampled colours, all others as PNG, which loses nothing.
    """
    if photo.broken or not photo.data:
        return Opened(photo, reason=photo.broken or "has no image")
    try:
        image = load_rgb(photo.data)
        with open_image(io.BytesIO(photo.data), photo.key) as stored:
            format = stored.format or ""
    except ImageError as error:
        detail = str(error).partition(": ")[2]
        return Opened(photo, reason=f"is no photo that can be read ({detail})")
    if format in STORED:
        return Opened(photo, STORED[format], image)
    buffer, lossy = io.BytesIO(), format in LOSSY
    if lossy:
        image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    else:
        image.save(buffer, "PNG")
    return Opened(replace(photo, data=buffer.getvalue()), "jpg" if lossy else "png", image)
