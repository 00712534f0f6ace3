"""The engine: photos in, rows out, in one process that a teacher keeps busy.

Photos are read and decoded by threads ahead of the teacher, and its answers are judged by a thread
behind it; the main thread asks the teacher and writes. The stages themselves know none of this.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from PIL import Image

from nanocap.distill.labelling.decision import Decision
from nanocap.distill.labelling.panel import Clock, Panel
from nanocap.distill.labelling.photos import Opened, Photo, open_photo
from nanocap.distill.labelling.plan import Labelled, Task
from nanocap.distill.labelling.proposals import propose
from nanocap.distill.labelling.shards import LabelShard

AHEAD = 3  # batches that are decoded before the teacher asks for them
BEHIND = 4  # batches that may wait to be judged
MOST_DECODERS = 8  # threads; Pillow decodes without holding Python's lock


def label(
    task: Task,
    panel: Panel,
    step: Callable[[int], None] = lambda count: None,
    skip: Callable[[int], None] = lambda count: None,
) -> Labelled:
    """Label a task's photos: files of rows, the log of all decisions, and a manifest.

    A file of rows appears whole or not at all and one that is whole is not made again, so a run
    that was killed at any moment, and run again, ends with the rows of one that was not.

    Args:
        step: told how many more photos are done; `skip`, how many were done by an earlier run.
    Raises:
        DataError: the folder holds labels made otherwise, photos cannot be read, or labels not
            written.
    """
    panel.claim(task)
    Engine(task, panel, step).make(task.unfinished(skip))
    return task.conclude()


@dataclass(frozen=True)
class Batch:
    """Photos that the teachers see at once."""

    index: int  # the file of labels that they belong to
    opened: tuple[Opened, ...]
    last: bool  # no more belong to it
    seconds: float  # that reading and decoding them took

    @property
    def readable(self) -> list[tuple[Photo, Image.Image]]:
        """The photos that could be decoded."""
        return [(one.photo, one.image) for one in self.opened if one.image is not None]


class Engine:
    """The threads that label; `step` is told how many more photos are done."""

    def __init__(self, task: Task, panel: Panel, step: Callable[[int], None] = lambda count: None):
        self.task, self.panel, self.step = task, panel, step
        self.clock, self.started = Clock(), time.perf_counter()
        self.shard: LabelShard | None = None

    def make(self, indices: Sequence[int]) -> None:
        """Label the photos of these files of labels."""
        teachers, options = self.panel.members, self.task.options
        waiting: deque[tuple[Batch, Future[tuple[list[Decision], Clock]]]] = deque()
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as judges:
            try:
                for batch in self._ahead(reader, indices):
                    asked = [Decision(photo.key, photo.originals) for photo, _ in batch.readable]
                    images = [image for _, image in batch.readable]
                    with self.clock("propose"):
                        if asked:
                            asked = propose(asked, images, teachers, options.captions)
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
        options = self.task.options
        for index in indices:
            left = self.task.size_of(index)
            photos = self.task.photos.read(index * options.shard, left)
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
        return self.panel.judge(asked, images, self.task.options.captions, clock), clock

    def _write(self, batch: Batch, judged: Future[tuple[list[Decision], Clock]]) -> None:
        with self.clock("wait for judgement"):
            decisions, clock = judged.result()
        self.clock.add(clock.seconds)
        with self.clock("write"):
            if self.shard is None:
                self.shard = LabelShard(self.task.out, batch.index, self.task.options.format)
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
