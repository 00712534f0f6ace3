"""Cache of teacher logits and features, for every caption and view that a run will see.

Kept are the few likeliest pieces at each place of a caption, which hold nearly all of the
probability, and one vector a photo of what the teachers see. A step then costs no teacher at all,
however many of them there are and however large.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nanocap.distill.data.batches import Captions, CaptionTable, Schedule, pack
from nanocap.distill.data.corpus import Corpus
from nanocap.distill.data.feature_cache import SEED, Maps
from nanocap.distill.training.losses import by_length, mean_distribution, top_divergence
from nanocap.distill.training.white_box_teachers import Guides, seen
from nanocap.files.whole_file import whole_file
from nanocap.progress import tracked
from nanocap.student.controls import PAD, PREFIX

TOP = 16  # pieces kept of each distribution
CHUNK = 32  # photos that go through the teachers at once
PLACE = np.dtype([("piece", "<u2", TOP), ("probability", "<f2", TOP)])


@dataclass(frozen=True)
class Lesson:
    """What the teachers said about the rows of a batch."""

    pieces: Tensor  # [rows, T, TOP]; anything where nothing is asked
    probabilities: Tensor  # of those; the rest of the vocabulary shares what is missing to one
    seen: Tensor  # [B, channels], what the teachers see in each photo

    def to(self, device: torch.device) -> Lesson:
        """The same on another device."""
        return Lesson(self.pieces.to(device), self.probabilities.to(device), self.seen.to(device))

    def divergence(
        self, logits: Tensor, part: Tensor, tokens: Tensor, image: Tensor, counted: Tensor
    ) -> Tensor:
        """Kullback-Leibler divergence [counted] of the student's logits from the teachers."""
        longest = counted.shape[1]
        pieces = self.pieces[part][:, :longest][counted]
        probabilities = self.probabilities[part][:, :longest][counted]
        return top_divergence(logits, pieces, probabilities)


class Lessons:
    """The lessons of a run whose inputs are cached maps, kept in files by source and view.

    A caption has two places there: told its length, and not.
    """

    def __init__(
        self,
        corpus: Corpus,
        schedule: Schedule,
        table: CaptionTable,
        guides: Guides,
        views: int,
        cache: Path,
        device: torch.device,
    ):
        self._table, self._device = table, device
        feeds = guides.feeds(corpus, schedule, views, cache)
        self._views = feeds[0]
        self._starts: dict[int, list[int]] = {}  # of each photo's rows, in its source's files
        self._seats: dict[int, tuple[str, int]] = {}
        self._files: dict[tuple[str, int], tuple[NDArray[Any], NDArray[np.float16]]] = {}
        for source in dict.fromkeys(row.source for row in corpus.rows):
            photos = [i for i in corpus.training() if corpus.rows[i].source == source]
            digest = hashlib.sha256(f"{SEED}/{guides.digests}".encode())
            end = 0
            for seat, photo in enumerate(photos):
                rows = table.both(photo)
                digest.update(f"/{corpus.rows[photo].key}/{rows}".encode())
                *starts, end = accumulate((len(row) - PREFIX for row in rows), initial=end)
                self._starts[photo], self._seats[photo] = starts, (source, seat)
            for view in range(max(1, views)):
                stem = cache / f"lessons-{digest.hexdigest()[:12]}-{view}"
                places, looks = stem.with_suffix(".places.npy"), stem.with_suffix(".seen.npy")
                if not looks.exists():  # the second of the two to be written
                    chunks = [photos[i : i + CHUNK] for i in range(0, len(photos), CHUNK)]
                    label = f"caching teacher logits for {source}, view {view}"
                    asked = [
                        self._ask(guides, feeds, chunk, view)
                        for chunk in tracked(chunks, label, len(chunks))
                    ]
                    _write(asked, places, looks)
                self._files[source, view] = (
                    np.load(places, mmap_mode="r"),
                    np.load(looks, mmap_mode="r"),
                )

    def look(
        self, step: int, photos: Sequence[int], places: Sequence[int], captions: Captions
    ) -> Lesson:
        """What the teachers said about these captions, and saw in the same views of the photos."""
        shape = (*captions.targets.shape, TOP)
        pieces = torch.zeros(shape, dtype=torch.int64)
        probabilities = torch.zeros(shape)
        views = [self._views.view(step, place) for place in places]
        for row, image in enumerate(captions.image.tolist()):
            photo = photos[image]
            asked = [token for token in captions.targets[row].tolist() if token != PAD]
            whole = [*captions.tokens[row, :PREFIX].tolist(), *asked]
            start = self._starts[photo][self._table.both(photo).index(whole)]
            said = self._files[self._seats[photo][0], views[image]][0][start : start + len(asked)]
            these = slice(PREFIX - 1, PREFIX - 1 + len(asked))
            pieces[row, these] = torch.from_numpy(said["piece"].astype(np.int64))
            probabilities[row, these] = torch.from_numpy(said["probability"].astype(np.float32))
        looks = [
            self._files[self._seats[photo][0], view][1][self._seats[photo][1]]
            for photo, view in zip(photos, views, strict=True)
        ]
        return Lesson(pieces, probabilities, torch.from_numpy(np.stack(looks)).float())

    @torch.no_grad()
    def _ask(
        self, guides: Guides, feeds: Sequence[Maps], photos: Sequence[int], view: int
    ) -> tuple[NDArray[Any], NDArray[np.float16]]:
        maps = [np.stack([feed.of(photo, view) for photo in photos]) for feed in feeds]
        inputs = [torch.from_numpy(one).float().to(self._device) for one in maps]
        readers = guides.look(inputs, True)
        rows = [self._table.both(photo) for photo in photos]
        captions = pack(
            [row for some in rows for row in some],
            [image for image, some in enumerate(rows) for _ in some],
        ).to(self._device)
        lengths = [len(row) - PREFIX for some in rows for row in some]
        starts = [0, *accumulate(lengths)]
        answers = np.zeros(starts[-1], dtype=PLACE)
        for part in by_length(captions):
            tokens, targets = captions.tokens[part], captions.targets[part]
            counted = targets != PAD
            logits = [reader.logits(tokens, captions.image[part], counted) for reader in readers]
            top = mean_distribution(logits).topk(TOP)
            where = np.concatenate(
                [np.arange(starts[row], starts[row] + lengths[row]) for row in part.tolist()]
            )
            answers["piece"][where] = top.indices.cpu().numpy()
            answers["probability"][where] = top.values.float().cpu().numpy()
        return answers, seen(readers).cpu().numpy().astype(np.float16)


def _write(
    asked: Sequence[tuple[NDArray[Any], NDArray[np.float16]]], places: Path, looks: Path
) -> None:
    for path, parts in ((places, [one for one, _ in asked]), (looks, [two for _, two in asked])):
        with whole_file(path) as partial, partial.open("wb") as file:
            np.save(file, np.concatenate(parts))
