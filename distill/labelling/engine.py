"""The engine: photos in, rows out, in one process that a teacher keeps busy.

Photos are read and decoded by threads ahead of the teacher, and its answers are judged by a thread
behind it; the main thread asks the teacher and writes. The stages themselves know none of this.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from nanocap.distill.labelling.adapt import Eyes, adapt
from nanocap.distill.labelling.agree import agree
from nanocap.distill.labelling.decision import Decision
from nanocap.distill.labelling.detector import Detector
from nanocap.distill.labelling.fuse import fuse
from nanocap.distill.labelling.levels import grade
from nanocap.distill.labelling.match import LineUp
from nanocap.distill.labelling.options import Options
from nanocap.distill.labelling.photos import Opened, Photo, PhotoShards, open_photo
from nanocap.distill.labelling.plan import claim, make_plan, write_manifest
from nanocap.distill.labelling.propose import members, propose
from nanocap.distill.labelling.rank import rank
from nanocap.distill.labelling.shards import LabelShard, finished
from nanocap.distill.labelling.verify import verify
from nanocap.distill.teachers import KeyedTeacher, Teacher

AHEAD = 3  # batches that are decoded before the teacher asks for them
BEHIND = 4  # batches that may wait to be judged
MOST_DECODERS = 8  # threads; Pillow decodes without holding Python's lock


@dataclass(frozen=True)
class Evidence:
    """What else is asked about a photo, where it is there."""

    line_up: LineUp | None = None
    detector: Detector | None = None
    eyes: Eyes | None = None

    def files(self) -> list[Path]:
        """What it was read from."""
        found = [self.line_up.path] if self.line_up else []
        found += [self.detector.path, self.detector.labels] if self.detector else []
        return found + ([self.eyes.path] if self.eyes else [])


@dataclass(frozen=True)
class Labelled:
    """What a folder of labels holds after a run.

    Attributes:
        left_out: why, by key, for every photo without a row.
        manifest: as it was written.
    """

    left_out: Mapping[str, str]
    manifest: Mapping[str, Any]


class Clock:
    """Seconds by name; a thread has its own."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - start

    def add(self, seconds: Mapping[str, float]) -> None:
        """Take over what another clock measured."""
        for name, value in seconds.items():
            self.seconds[name] += value


@dataclass(frozen=True)
class Batch:
    """Photos that the teachers see at once.

    Attributes:
        index: the file of labels that they belong to.
        last: no more belong to it.
        seconds: that reading and decoding them took.
    """

    index: int
    opened: tuple[Opened, ...]
    last: bool
    seconds: float

    @property
    def readable(self) -> list[tuple[Photo, Image.Image]]:
        """The photos that could be decoded."""
        return [(one.photo, one.image) for one in self.opened if one.image is not None]


def label(
    teachers: Sequence[Teacher | KeyedTeacher],
    photos: PhotoShards,
    out: Path,
    options: Options = Options(),  # noqa: B008 - frozen
    evidence: Evidence = Evidence(),
    settings: Mapping[str, str] | None = None,
    step: Callable[[int], None] = lambda count: None,
    skip: Callable[[int], None] = lambda count: None,
) -> Labelled:
    """Label photos into `out`: files of rows, the log of all decisions, and a manifest.

    A file of rows appears whole or not at all and one that is whole is not made again, so a run
    that was killed at any moment, and run again, ends with the rows of one that was not.

    Args:
        settings: how the teachers are run, as far as it decides what they say.
        step: told how many more photos are done; `skip`, how many were done by an earlier run.
    Raises:
        DataError: `out` holds labels made otherwise, photos cannot be read, labels not written.
    """
    claimed(teachers, photos, out, options, evidence, settings or {})
    todo = unfinished(photos, out, options, skip)
    make(todo, teachers, photos, out, options, evidence, step)
    return conclude(photos, out, options)


def claimed(
    teachers: Sequence[Teacher | KeyedTeacher],
    photos: PhotoShards,
    out: Path,
    options: Options,
    evidence: Evidence,
    settings: Mapping[str, str],
) -> None:
    """Make `out` the folder of these labels. Raises DataError if it is that of others."""
    claim(out, make_plan(members(teachers), photos, options, settings, evidence.files()))


def unfinished(
    photos: PhotoShards, out: Path, options: Options, skip: Callable[[int], None]
) -> list[int]:
    """Our files of labels that are still to be made; `skip` is told of the photos of the others."""
    todo = []
    for index in _ours(photos, options):
        if finished(out, index, options.format):
            skip(size_of(len(photos), options.shard, index))
        else:
            todo.append(index)
    return todo


def make(
    indices: Sequence[int],
    teachers: Sequence[Teacher | KeyedTeacher],
    photos: PhotoShards,
    out: Path,
    options: Options,
    evidence: Evidence,
    step: Callable[[int], None],
) -> None:
    """Make these files of labels."""
    _Run(members(teachers), photos, out, options, evidence, step).make(indices)


def conclude(photos: PhotoShards, out: Path, options: Options) -> Labelled:
    """Write the manifest of what is there, and say what was left out of our files."""
    files = -(-len(photos) // options.shard)
    summaries = [finished(out, index, options.format) for index in range(files)]
    left_out = {
        key: reason
        for index in _ours(photos, options)
        for key, reason in ((summaries[index] or {}).get("left_out", {})).items()
    }
    return Labelled(left_out, write_manifest(out, summaries))


def _ours(photos: PhotoShards, options: Options) -> range:
    """The indices of the files of labels that are our part."""
    return range(options.part[0] - 1, -(-len(photos) // options.shard), options.part[1])


def judge(
    decisions: Sequence[Decision],
    images: Sequence[Image.Image],
    evidence: Evidence,
    captions: int,
    clock: Clock,
) -> list[Decision]:
    """All stages behind the teachers: from proposals to what a row keeps."""
    judged = list(decisions)
    if evidence.detector is not None:
        with clock("detect"):
            sights = evidence.detector.look(images)
        judged = [replace(one, sight=sight) for one, sight in zip(judged, sights, strict=True)]
    with clock("fuse"):
        judged = [agree(fuse(agree(one))) for one in judged]
    if evidence.line_up is not None:
        with clock("match"):
            judged = evidence.line_up.match(judged, images)
    with clock("verify"):
        judged = [verify(one) for one in judged]
    with clock("rank"):
        judged = [one if one.left_out else grade(rank(one), captions) for one in judged]
    if evidence.eyes is not None:
        with clock("adapt"):
            judged = adapt(judged, images, evidence.eyes)
    return judged


class _Run:
    """The threads of one run, and what goes between them."""

    def __init__(
        self,
        teachers: Sequence[Teacher | KeyedTeacher],
        photos: PhotoShards,
        out: Path,
        options: Options,
        evidence: Evidence,
        step: Callable[[int], None],
    ):
        self.teachers, self.photos, self.out = teachers, photos, out
        self.options, self.evidence, self.step = options, evidence, step
        self.clock, self.started = Clock(), time.perf_counter()
        self.shard: LabelShard | None = None

    def make(self, indices: Sequence[int]) -> None:
        """Label the photos of these files of labels."""
        waiting: deque[tuple[Batch, Future[tuple[list[Decision], Clock]]]] = deque()
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as judges:
            try:
                for batch in self._ahead(reader, indices):
                    asked = [Decision(photo.key, photo.originals) for photo, _ in batch.readable]
                    images = [image for _, image in batch.readable]
                    with self.clock("propose"):
                        if asked:
                            asked = propose(asked, images, self.teachers, self.options.captions)
                    waiting.append((batch, judges.submit(self._judge, asked, images)))
                    if len(waiting) > BEHIND:
                        self._write(*waiting.popleft())
                while waiting:
                    self._write(*waiting.popleft())
            finally:
                reader.shutdown(cancel_futures=True)
                judges.shutdown(cancel_futures=True)
                if self.shard is not None:
                    self.shard.abandon()

    def _ahead(self, reader: ThreadPoolExecutor, indices: Sequence[int]) -> Iterator[Batch]:
        """All batches in order, some of them decoded before they are asked for."""
        with ThreadPoolExecutor(min(MOST_DECODERS, os.cpu_count() or 1)) as decoders:
            batches = self._batches(indices, decoders)
            coming = deque(reader.submit(next, batches, None) for _ in range(AHEAD))
            while True:
                with self.clock("wait for photos"):
                    batch = coming.popleft().result()
                if batch is None:
                    return
                coming.append(reader.submit(next, batches, None))
                self.clock.add({"decode": batch.seconds})
                yield batch

    def _batches(self, indices: Sequence[int], decoders: ThreadPoolExecutor) -> Iterator[Batch]:
        options = self.options
        for index in indices:
            left = size_of(len(self.photos), options.shard, index)
            photos = self.photos.read(index * options.shard, left)
            while left > 0:
                start = time.perf_counter()
                opened = tuple(decoders.map(open_photo, islice(photos, options.batch)))
                left -= options.batch
                yield Batch(index, opened, left <= 0, time.perf_counter() - start)

    def _judge(
        self, asked: Sequence[Decision], images: Sequence[Image.Image]
    ) -> tuple[list[Decision], Clock]:
        clock = Clock()
        if not asked:
            return [], clock
        return judge(asked, images, self.evidence, self.options.captions, clock), clock

    def _write(self, batch: Batch, judged: Future[tuple[list[Decision], Clock]]) -> None:
        with self.clock("wait for judgement"):
            decisions, clock = judged.result()
        self.clock.add(clock.seconds)
        with self.clock("write"):
            if self.shard is None:
                self.shard = LabelShard(self.out, batch.index, self.options.format)
            following = iter(decisions)
            for one in batch.opened:
                photo = one.photo
                unread = Decision(photo.key, photo.originals, left_out=one.reason)
                self.shard.add(photo, one.suffix, next(following) if one.image else unread)
        if batch.last:
            now = time.perf_counter()
            self.clock.seconds["total"] = now - self.started
            self.shard.commit(self.clock.seconds)
            self.shard, self.clock, self.started = None, Clock(), now
        self.step(len(batch.opened))


def size_of(photos: int, shard: int, index: int) -> int:
    """Photos of the `index`-th file of labels."""
    return min(shard, photos - index * shard)
