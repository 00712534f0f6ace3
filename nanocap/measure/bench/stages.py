"""The tasks of one artifact at one number of threads, and what its graphs are fed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from nanocap.bundle import Bundle
from nanocap.bundle.manifest import Artifact, Manifest
from nanocap.measure.bench.photos import Photo
from nanocap.measure.bench.timing import Task
from nanocap.runtime.captioner import Captioner
from nanocap.runtime.engines import load_engine

POSITION = 10  # a step in the middle of a sentence
LOAD, ENCODER, STEP, CAPTION, BATCH = "load", "encoder", "step", "caption", "batch"


@dataclass(frozen=True)
class Key:
    """What a timing is of.

    Attributes:
        what: `LOAD`, `ENCODER`, `STEP`, `CAPTION`, `BATCH`, a kind of peak, or a photo's name.
        threads: of the model; 0 where no model runs.
        artifact: its name; empty where no model runs.
        beams: of a step or a caption; 0 for the others.
    """

    what: str
    threads: int = 0
    artifact: str = ""
    beams: int = 0


@dataclass(frozen=True)
class Effort:
    """How often the short calls are repeated a turn.

    Attributes:
        peaks: of each matrix product, and of the copy.
        encoder: of the encoder.
        step: of a decoder step.
        batch: photos in a batch.
    """

    peaks: int
    encoder: int
    step: int
    batch: int


class Setup:
    """One artifact, loaded for one number of threads.

    Raises:
        BundleError, EngineError, MissingExtraError: it cannot be loaded.
    """

    def __init__(self, bundle: Bundle, artifact: Artifact, threads: int) -> None:
        self.artifact, self.threads = artifact, threads
        self.manifest = bundle.manifest
        self._source: Path = bundle.source
        files = bundle.load(artifact)
        self.files = {role: files[path] for role, path in artifact.files.items()}
        self._engine = load_engine(artifact, files, threads)
        self._captioner = self._load()

    def key(self, what: str, beams: int = 0) -> Key:
        """The key of one of this setup's timings."""
        return Key(what, self.threads, self.artifact.name, beams)

    def tasks(
        self, photos: Sequence[Photo], beams: Sequence[int], effort: Effort
    ) -> list[Task[Key]]:
        """Everything that is timed of the model.

        Args:
            photos: what captions and batches take, in turns.
            beams: of steps and of captions.
        """
        pixels = encoder_feeds(self.manifest)["pixels"]
        tasks = [
            Task(self.key(LOAD), self._load),
            Task(self.key(ENCODER), lambda: self._engine.encode(pixels), effort.encoder),
        ]
        for count in beams:
            tasks.append(Task(self.key(STEP, count), self._step(count), effort.step))
            tasks.append(Task(self.key(CAPTION, count), self._caption(photos, count), len(photos)))
        sources = [photo.data for photo, _ in zip(cycle(photos), range(effort.batch), strict=False)]
        batch = Task(self.key(BATCH), lambda: self._captioner(sources, batch_size=effort.batch))
        return [*tasks, batch]

    def tokens(self, photos: Sequence[Photo], beams: int) -> float:
        """Mean pieces of a caption, the end not among them."""
        captions = self._captioner((photo.data for photo in photos), beams=beams)
        return sum(len(caption.tokens) for caption in captions) / len(captions)

    def _load(self) -> Captioner:
        return Captioner(self._source, artifact=self.artifact.name, threads=self.threads)

    def _step(self, beams: int) -> Callable[[], object]:
        feeds = step_feeds(self.manifest, self.artifact.visual_tokens, beams)
        cross = (feeds["cross_keys"], feeds["cross_values"])
        cache = (feeds["keys"], feeds["values"])
        position = int(feeds["position"][0])
        return lambda: self._engine.step(feeds["tokens"], position, cross, cache)

    def _caption(self, photos: Sequence[Photo], beams: int) -> Callable[[], object]:
        following: Iterator[Photo] = cycle(photos)
        return lambda: self._captioner(next(following).data, beams=beams)


def encoder_feeds(manifest: Manifest) -> Mapping[str, Any]:
    """Inputs of the encoder's graph: the pixels of one image."""
    size = manifest.image.size
    rng = np.random.default_rng(0)
    return {"pixels": rng.integers(0, 256, (1, size, size, 3), dtype=np.uint8)}


def step_feeds(manifest: Manifest, visual_tokens: int, beams: int) -> Mapping[str, Any]:
    """Inputs of the decoder's graph: one step of one image at `POSITION`."""
    sizes, rng = manifest.sizes, np.random.default_rng(0)

    def floats(rows: int, places: int, width: int) -> Any:
        return rng.normal(size=(sizes.layers, rows, places, width)).astype(np.float32)

    return {
        "tokens": np.zeros((1, beams), np.int64),
        "position": np.array([min(POSITION, sizes.max_tokens - 1)], np.int64),
        "cross_keys": floats(1, visual_tokens, sizes.cross_width),
        "cross_values": floats(1, visual_tokens, sizes.cross_width),
        "keys": floats(beams, sizes.max_tokens, sizes.cache_width),
        "values": floats(beams, sizes.max_tokens, sizes.cache_width),
    }
