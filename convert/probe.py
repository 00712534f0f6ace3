"""Greedy captions of probe photos, step by step: what parity and calibration look at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nanocap.bundle.manifest import Controls, SearchDefaults
from nanocap.convert.graphs.modules import DecoderGraph
from nanocap.runtime.engines import Engine
from nanocap.runtime.engines.state import State
from nanocap.student.controls import PREFIX

BATCH = 8

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Probe:
    """Photos, and what captioning them has to know.

    Attributes:
        pixels: uint8 [photos, size, size, 3].
        quality, length: ids of the control tokens that are fed first.
        never: ids that are never generated.
    """

    pixels: Pixels
    quality: int
    length: int
    never: tuple[int, ...]

    @classmethod
    def of(
        cls, pixels: Pixels, controls: Controls, search: SearchDefaults, never: tuple[int, ...]
    ) -> Probe:
        """Photos to caption with the default controls."""
        return cls(pixels, controls.quality[search.quality], controls.length[search.length], never)

    def begin(self, engine: Engine, pixels: Pixels, beams: int = 1) -> State:
        """The state before the first step."""
        return engine.begin(pixels, beams, self.quality, self.length, 1.0)

    def barred(self, logits: Floats) -> Floats:
        """Logits [..., V] with the ids that are never generated out of reach."""
        masked = logits.copy()
        masked[..., list(self.never)] = -np.inf
        return masked


@dataclass(frozen=True)
class Step:
    """One step of greedy captioning.

    Attributes:
        state: before it.
        logits: [B, V].
        counts: [B], whether the row predicts a piece of its caption or the end.
    """

    state: State
    logits: Floats
    counts: npt.NDArray[np.bool_]

    @property
    def place(self) -> int:
        """Which piece of the caption is predicted, from 1; below 1 within the prompt."""
        return int(self.state["position"][0]) - PREFIX + 2

    def feeds(self) -> dict[str, npt.NDArray[Any]]:
        """The inputs of the decoder's graph."""
        names = (*DecoderGraph.inputs, "copy_keys")
        return {name: self.state[name] for name in names if name in self.state}


def batches(pixels: Pixels) -> Iterator[Pixels]:
    """`pixels` in batches of at most `BATCH` photos."""
    yield from (pixels[start : start + BATCH] for start in range(0, len(pixels), BATCH))


def rollout(engine: Engine, probe: Probe, pixels: Pixels) -> Iterator[Step]:
    """The steps of greedy captioning of one batch, prompt included, until all rows have ended."""
    state = probe.begin(engine, pixels)
    while state["going"].any():
        after = engine.step(state, logits=True)
        counts = state["going"].astype(bool) & (state["position"] >= PREFIX - 1)
        yield Step(state, after["logits"][:, 0], counts)
        state = after


def forced(engine: Engine, state: State, tokens: npt.NDArray[np.int64]) -> State:
    """The state after a step that is fed other tokens, [B, K] or [B, 1], than its search chose."""
    own = state["tokens"]
    fed = np.broadcast_to(tokens, own.shape).astype(own.dtype)
    return engine.step({**state, "tokens": fed}, logits=True)
