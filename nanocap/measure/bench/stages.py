"""The tasks of one artifact at one number of threads, and what its graphs are fed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path

from nanocap.bundle import Bundle
from nanocap.bundle.manifest import Artifact
from nanocap.image.image import load_image
from nanocap.measure.bench.graphs import Feeds, controls, inputs
from nanocap.measure.bench.photos import Photo
from nanocap.measure.bench.timing import Task
from nanocap.runtime.captioner import Captioner
from nanocap.runtime.engines import load_engine
from nanocap.runtime.engines.onnx import begin_feeds
from nanocap.runtime.engines.state import State

POSITION = 10  # a step in the middle of a sentence
LOAD, BEGIN, STEP, CAPTION, BATCH = "load", "begin", "step", "caption", "batch"


@dataclass(frozen=True)
class Key:
    """What a timing is of.

    Attributes:
        what: `LOAD`, `BEGIN`, `STEP`, `CAPTION`, `BATCH`, a kind of peak, or a photo's name.
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
        begin: of `begin`.
        step: of `step`.
        batch: photos in a batch.
    """

    peaks: int
    begin: int
    step: int
    batch: int


class Setup:
    """One artifact, loaded for one number of threads.

    Attributes:
        beams: that it is measured with: greedy and the bundle's own, where it takes them.

    Args:
        photos: what captions and batches take, in turns.

    Raises:
        BundleError, EngineError, MissingExtraError: it cannot be loaded.
    """

    def __init__(
        self, bundle: Bundle, artifact: Artifact, threads: int, photos: Sequence[Photo]
    ) -> None:
        self.artifact, self.threads, self._photos = artifact, threads, photos
        self._source: Path = bundle.source
        files, manifest = bundle.load(artifact), bundle.manifest
        self._files = {role: files[path] for role, path in artifact.files.items()}
        self._engine = load_engine(artifact, files, threads)
        self._captioner = self._load()
        self._pixels = load_image(photos[0].data, manifest.image)[None]
        self._controls = controls(manifest)
        self._position = min(POSITION, manifest.sizes.max_tokens - 1)
        fewest, most = artifact.beams
        wanted = (min(max(beams, fewest), most) for beams in (1, manifest.search.beams))
        self.beams = tuple(dict.fromkeys(wanted))

    @property
    def stages(self) -> list[tuple[str, int]]:
        """Its graphs as they are measured, each with a number of beams: 0 for `BEGIN`."""
        return [(BEGIN, 0), *((STEP, beams) for beams in self.beams)]

    def key(self, what: str, beams: int = 0) -> Key:
        """The key of one of this setup's timings."""
        return Key(what, self.threads, self.artifact.name, beams)

    def tasks(self, effort: Effort) -> list[Task[Key]]:
        """Everything that is timed of the model."""
        calls = {BEGIN: effort.begin, STEP: effort.step}
        tasks = [Task(self.key(LOAD), self._load)]
        tasks += [
            Task(self.key(*stage), self.call(*stage), calls[stage[0]]) for stage in self.stages
        ]
        for beams in self.beams:
            tasks.append(Task(self.key(CAPTION, beams), self._caption(beams), len(self._photos)))
        several = zip(cycle(self._photos), range(effort.batch), strict=False)
        sources = [photo.data for photo, _ in several]
        batch = Task(self.key(BATCH), lambda: self._captioner(sources, batch_size=effort.batch))
        return [*tasks, batch]

    def call(self, name: str, beams: int = 0) -> Callable[[], State]:
        """What is timed of a stage."""
        if name == BEGIN:
            return partial(self._begin, self.beams[-1])
        return partial(self._engine.step, self._middle(beams))

    def graph(self, name: str, beams: int = 0) -> tuple[bytes, Feeds]:
        """A stage's graph and its inputs, of an ONNX artifact."""
        if name == BEGIN:
            feeds = begin_feeds(self._pixels, self.beams[-1], *self._controls)
        else:
            feeds = self._middle(beams)
        graph = self._files[name]
        # what the state holds for others, such as how sure the evidence is, no graph takes
        return graph, {given: feeds[given] for given in inputs(graph)}

    def tokens(self, beams: int) -> float:
        """Mean pieces of a caption, the end not among them."""
        captions = self._captioner((photo.data for photo in self._photos), beams=beams)
        return sum(len(caption.tokens) for caption in captions) / len(captions)

    def _load(self) -> Captioner:
        return Captioner(self._source, artifact=self.artifact.name, threads=self.threads)

    def _begin(self, beams: int) -> State:
        return self._engine.begin(self._pixels, beams, *self._controls)

    def _middle(self, beams: int) -> State:
        """The state of the first photo at `POSITION`."""
        state = self._begin(beams)
        for _ in range(self._position):
            state = self._engine.step(state)
        return state

    def _caption(self, beams: int) -> Callable[[], object]:
        following: Iterator[Photo] = cycle(self._photos)
        return lambda: self._captioner(next(following).data, beams=beams)
