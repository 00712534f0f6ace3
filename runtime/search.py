"""The loop over a model's two graphs: all that is left of a search outside of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nanocap.bundle.manifest import StateTensor
from nanocap.errors import EngineError, one_line
from nanocap.runtime.constraints import Constraints
from nanocap.runtime.engines import Engine
from nanocap.runtime.engines.state import State, fits, take

EVIDENCE, CERTAINTY = "evidence", "certainty"  # of a state that has them
PROMPT = 2  # tokens before the first piece: quality and length
NONE = -1e29  # scores below are of no hypothesis
OTHER = "the bundle's graphs do not fit its manifest, get the bundle again"
ENDLESS = "the model's search does not end; the bundle is damaged, get it again"


@dataclass(frozen=True)
class Options:
    """How to search.

    Attributes:
        beams: hypotheses kept an image; 1 is greedy.
        length_penalty: 0 prefers short captions, 1 scores by the mean log probability.
        quality, length: ids of the control tokens that a caption starts from.
        constraints: words that captions must not, and must, say.
    """

    beams: int
    length_penalty: float
    quality: int
    length: int
    constraints: Constraints | None = None


@dataclass(frozen=True)
class Hypothesis:
    """A sequence found for one image.

    Attributes:
        ids: the pieces, the end not among them.
        log_probabilities: of each of them, and of the end where there was one.
    """

    ids: tuple[int, ...]
    log_probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Answer:
    """What was found for one image.

    Attributes:
        hypotheses: best first, at least one; none where no caption obeys the constraints.
        evidence: pieces of words that the encoder found, and their log probabilities, the likeliest
            first; none with a model that tells its decoder none.
    """

    hypotheses: tuple[Hypothesis, ...]
    evidence: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Searcher:
    """An engine and what the bundle says of its state.

    Attributes:
        tensors: of the state.
        end, pad: ids that end a caption, and that stand where there is no piece.
        longest: steps at most.
    """

    engine: Engine
    tensors: Sequence[StateTensor]
    end: int
    pad: int
    longest: int

    def stream(self, pixels: npt.NDArray[np.uint8], options: Options) -> Iterator[tuple[int, ...]]:
        """The pieces that one image's only beam has after each step; pixels [1, size, size, 3]."""
        state = self._begin(pixels, options)
        for _ in range(self.longest):
            with vouched():
                state = self.engine.step(_constrained(state, options.constraints))
                going = bool(state["going"].any())
                pieces = self._pieces(state["ids" if going else "answer_ids"][0, 0])
            yield pieces
            if not going:
                return
        raise EngineError(ENDLESS)

    def search(self, pixels: npt.NDArray[np.uint8], options: Options) -> list[Answer]:
        """The hypotheses of each image, at most as many as there are beams.

        An image that is done leaves the batch.

        Raises:
            EngineError: the model gave no numbers (NaN), or not the state that the manifest lists.
        """
        found: list[Answer] = [Answer(())] * len(pixels)
        images = np.arange(len(pixels))
        state = self._begin(pixels, options)
        for _ in range(self.longest):
            state = self.engine.step(_constrained(state, options.constraints))
            going = np.flatnonzero(state["going"])
            if going.size < images.size:
                for place in np.flatnonzero(~state["going"].astype(bool)).tolist():
                    answers = self._answers(state, place, options.constraints is not None)
                    found[images[place]] = Answer(answers, self._evidence(state, place))
                images = images[going]
                if not images.size:
                    return found
                state = take(state, self.tensors, going)
        raise EngineError(ENDLESS)

    def _begin(self, pixels: npt.NDArray[np.uint8], options: Options) -> State:
        state = self.engine.begin(
            pixels, options.beams, options.quality, options.length, options.length_penalty
        )
        if not fits(state, self.tensors, len(pixels), options.beams):
            raise EngineError(OTHER)
        return state

    def _answers(self, state: State, place: int, constrained: bool) -> tuple[Hypothesis, ...]:
        scores = state["answer_scores"][place]
        if not constrained and not scores[0] > NONE:
            raise EngineError(
                "the model gave no numbers (NaN); its artifact is damaged, use another"
            )
        hypotheses = []
        for rank in np.flatnonzero(scores > NONE):
            ids = state["answer_ids"][place, rank]
            logs = state["answer_log_probabilities"][place, rank, : (ids != self.pad).sum()]
            hypotheses.append(Hypothesis(self._pieces(ids), tuple(logs.tolist())))
        return tuple(hypotheses)

    def _evidence(self, state: State, place: int) -> tuple[tuple[int, float], ...]:
        if EVIDENCE not in state:
            return ()
        both = (state[name][place].tolist() for name in (EVIDENCE, CERTAINTY))
        return tuple(zip(*both, strict=True))

    def _pieces(self, ids: npt.NDArray[np.int64]) -> tuple[int, ...]:
        return tuple(ids[(ids != self.pad) & (ids != self.end)].tolist())


def _constrained(state: State, constraints: Constraints | None) -> State:
    """The state with a bias for the next step. The prompt's steps choose nothing."""
    said = int(state["position"][0]) + 1 - PROMPT
    if constraints is None or said < 0:
        return state
    return {**state, "bias": constraints.bias(state["ids"], said)}


@contextmanager
def vouched() -> Iterator[None]:
    """Around what reads a state: graphs of any origin may give another than the manifest lists.

    Raises:
        EngineError: instead of what Python says to an array that is missing, short or of odd ids.
    """
    try:
        yield
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise EngineError(f"{OTHER} ({one_line(error)[:100]})") from None
