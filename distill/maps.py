"""What the encoder is fed: cached middle maps of the trunk, or photos decoded when needed."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nanocap.distill.augment import augment, squash
from nanocap.distill.batches import Schedule
from nanocap.distill.corpus import Corpus
from nanocap.student import Student
from nanocap.student.trunk import PIXEL_MEAN, PIXEL_STD

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
    """Middle maps of every photo in a few augmented views, computed once and kept on disk.

    The lower trunk rests, so its map of a view never changes: this is what makes a decoder train
    in minutes on a CPU. View 0 is the plain photo.
    """

    from_maps = True

    def __init__(
        self,
        corpus: Corpus,
        schedule: Schedule,
        student: Student,
        views: int,
        cache: Path,
        seed: int,
    ):
        self.schedule = schedule
        digest = hashlib.sha256(f"{corpus.folder.name}/{seed}".encode())
        for tensor in student.encoder.trunk.lower_parameters():
            # plus zero: averaging turns a weight of -0.0 to 0.0, which changes no map
            digest.update((tensor.detach() + 0.0).contiguous().numpy().tobytes())
        size = student.dimensions.image_size
        self._views = []
        for view in range(max(1, views)):
            path = cache / f"maps-{digest.hexdigest()[:12]}-{size}-{view}.npy"
            if not path.exists():
                _compute(corpus, student, view, seed, path)
            self._views.append(np.load(path, mmap_mode="r"))

    def inputs(self, step: int, photos: Sequence[int], places: Sequence[int]) -> Tensor:
        """Maps [B, channels, S/16, S/16] of the photos, each in a view drawn for its place."""
        maps = [
            self._views[int(self.schedule.random(step, place, 0).integers(len(self._views)))][photo]
            for photo, place in zip(photos, places, strict=True)
        ]
        return torch.from_numpy(np.stack(maps)).float()


@torch.no_grad()
def _compute(corpus: Corpus, student: Student, view: int, seed: int, path: Path) -> None:
    size, trunk = student.dimensions.image_size, student.encoder.trunk

    def pixels(photo: int) -> NDArray[np.uint8]:
        image = corpus.photo(photo)
        if view == 0:
            return squash(image, size)
        return augment(
            image, size, np.random.default_rng((seed, view, photo)), may_flip(corpus, photo)
        )

    side = student.dimensions.grid
    shape = (len(corpus.rows), trunk.middle_channels, side, side)
    # always the same name: the gigabytes that a kill leaves are written over
    partial = path.with_name(f".{path.name}.partial.npy")
    maps = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float16, shape=shape)
    chunks = [
        range(first, min(first + CHUNK, len(corpus.rows)))
        for first in range(0, len(corpus.rows), CHUNK)
    ]
    with (
        ThreadPoolExecutor(max_workers=2) as pool,
        click.progressbar(chunks, label=f"caching maps, view {view}", file=sys.stderr) as bar,
        torch.autocast("cpu", torch.bfloat16),
    ):
        for chunk in bar:
            batch = normalize(np.stack(list(pool.map(pixels, chunk))))
            maps[chunk.start : chunk.stop] = trunk.lower(batch).float().numpy().astype(np.float16)
    maps.flush()
    del maps
    os.replace(partial, path)
