"""What the encoder is fed: cached middle maps of the trunk, or photos decoded when needed."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nanocap.distill.data.augment import augment, squash
from nanocap.distill.data.batches import Schedule
from nanocap.distill.data.corpus import Corpus
from nanocap.progress import progress
from nanocap.student import Student
from nanocap.student.devices import cpu_has_bf16
from nanocap.student.trunk import PIXEL_MEAN, PIXEL_STD

SEED = 11  # of the cached views: one for all runs, whatever their own
CHUNK = 128  # photos that go through the trunk at once when maps are cached
SIDED = frozenset({"left", "right"})  # a photo whose captions name a side is never mirrored


def may_flip(corpus: Corpus, photo: int) -> bool:
    """Whether mirroring the photo leaves its captions true."""
    return not any(SIDED & set(caption.split()) for caption in corpus.rows[photo].captions)


def normalize(pixels_BHWC: NDArray[np.uint8]) -> Tensor:
    """uint8 [B, S, S, 3] to the trunk's input, float [B, 3, S, S]."""
    pixels = torch.tensor(pixels_BHWC).permute(0, 3, 1, 2).float()
    return (pixels - PIXEL_MEAN) / PIXEL_STD


class Photos:
    """Freshly augmented pixels of each step, decoded in the background one step ahead."""

    from_maps = False

    def __init__(self, corpus: Corpus, schedule: Schedule, size: int):
        self.corpus, self.schedule, self.size = corpus, schedule, size
        self._pool = ThreadPoolExecutor(max_workers=2)
        self._ahead: dict[tuple[int, tuple[int, ...]], list[Future[NDArray[np.uint8]]]] = {}

    def inputs(self, step: int, photos: Sequence[int], places: Sequence[int]) -> Tensor:
        """Normalized pixels of the photos at these places of the step's global batch."""
        ours = self._start(step, photos, places)
        self._ahead.clear()
        following = self.schedule.photos(step + 1)
        self._start(step + 1, [int(following[place]) for place in places], places)
        return normalize(np.stack([future.result() for future in ours]))

    def plain(self, photos: Sequence[int]) -> Tensor:
        """Normalized pixels of whole photos."""
        return normalize(np.stack([squash(self.corpus.photo(p), self.size) for p in photos]))

    def _start(
        self, step: int, photos: Sequence[int], places: Sequence[int]
    ) -> list[Future[NDArray[np.uint8]]]:
        key = (step, tuple(photos))
        if key not in self._ahead:
            self._ahead[key] = [
                self._pool.submit(self._pixels, step, photo, place)
                for photo, place in zip(photos, places, strict=True)
            ]
        return self._ahead[key]

    def _pixels(self, step: int, photo: int, place: int) -> NDArray[np.uint8]:
        random = self.schedule.random(step, place, 0)
        flip = may_flip(self.corpus, photo)
        return augment(self.corpus.photo(photo), self.size, random, flip)


class Maps:
    """Lower maps of every photo in a few augmented views, computed once and kept on disk.

    The lower trunk rests, so its map of a view never changes: this is what makes a decoder train
    in minutes on a CPU. View 0 is the plain photo. The files are by source and by trunk, and a
    view depends on nothing but the photo's key and its number: runs with some sources in common
    share those files, and students of different trunks see the same views.
    """

    from_maps = True

    def __init__(
        self, corpus: Corpus, schedule: Schedule, student: Student, views: int, cache: Path
    ):
        self.schedule, self.views = schedule, max(1, views)
        trunk = hashlib.sha256()
        for tensor in student.encoder.trunk.lower_parameters():
            # plus zero: averaging turns a weight of -0.0 to 0.0, which changes no map
            trunk.update((tensor.detach() + 0.0).contiguous().numpy().tobytes())
        size = student.dimensions.image_size
        self._places: dict[int, tuple[str, int]] = {}
        self._maps: dict[tuple[str, int], NDArray[np.float16]] = {}
        for source in dict.fromkeys(row.source for row in corpus.rows):
            rows = [i for i, row in enumerate(corpus.rows) if row.source == source]
            self._places.update({row: (source, place) for place, row in enumerate(rows)})
            digest = hashlib.sha256(f"{trunk.hexdigest()}/{SEED}".encode())
            for row in rows:
                digest.update(f"/{corpus.rows[row].key}/{may_flip(corpus, row)}".encode())
            for view in range(self.views):
                path = cache / f"maps-{digest.hexdigest()[:12]}-{size}-{view}.npy"
                if not path.exists():
                    pixels = partial(_view, corpus, size, view)
                    _compute(student, rows, pixels, path, f"{source}, view {view}")
                self._maps[source, view] = np.load(path, mmap_mode="r")

    def view(self, step: int, place: int) -> int:
        """The view drawn for a place of the step's global batch."""
        return int(self.schedule.random(step, place, 0).integers(self.views))

    def of(self, photo: int, view: int) -> NDArray[np.float16]:
        """The map [channels, S/16, S/16] of one view of a photo."""
        source, place = self._places[photo]
        return self._maps[source, view][place]

    def plain(self, photos: Sequence[int]) -> Tensor:
        """Maps [B, channels, S/16, S/16] of whole photos."""
        return torch.from_numpy(np.stack([self.of(photo, 0) for photo in photos])).float()

    def inputs(self, step: int, photos: Sequence[int], places: Sequence[int]) -> Tensor:
        """Maps [B, channels, S/16, S/16] of the photos, each in a view drawn for its place."""
        maps = [
            self.of(photo, self.view(step, place))
            for photo, place in zip(photos, places, strict=True)
        ]
        return torch.from_numpy(np.stack(maps)).float()


def _view(corpus: Corpus, size: int, view: int, photo: int) -> NDArray[np.uint8]:
    image = corpus.photo(photo)
    if view == 0:
        return squash(image, size)
    random = np.random.default_rng((SEED, view, zlib.crc32(corpus.rows[photo].key.encode())))
    return augment(image, size, random, may_flip(corpus, photo))


@torch.no_grad()
def _compute(
    student: Student,
    photos: Sequence[int],
    pixels: Callable[[int], NDArray[np.uint8]],
    path: Path,
    what: str,
) -> None:
    side, trunk = student.dimensions.grid, student.encoder.trunk
    shape = (len(photos), trunk.lower_channels, side, side)
    # always the same name: the gigabytes that a kill leaves are written over
    partial_path = path.with_name(f".{path.name}.partial.npy")
    maps = np.lib.format.open_memmap(partial_path, mode="w+", dtype=np.float16, shape=shape)
    with (
        ThreadPoolExecutor(max_workers=2) as pool,
        progress(f"caching feature maps of {what}", len(photos)) as part,
        torch.autocast("cpu", torch.bfloat16, enabled=cpu_has_bf16()),
    ):
        for first in range(0, len(photos), CHUNK):
            chunk = photos[first : first + CHUNK]
            batch = normalize(np.stack(list(pool.map(pixels, chunk))))
            batch = batch.contiguous(memory_format=torch.channels_last)  # thrice as fast
            lower = trunk.lower(batch).float().numpy()
            maps[first : first + len(chunk)] = lower.astype(np.float16)
            part.step(len(chunk))
    maps.flush()
    del maps
    os.replace(partial_path, path)
