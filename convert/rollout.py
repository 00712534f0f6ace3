"""Greedy captions of probe photos, step by step: what parity and calibration look at."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nanocap.bundle.manifest import (
    Controls,
    DecodingDefaults,
    Dimensions,
    TokenIds,
    never_generated,
)
from nanocap.runtime.engines import Engine, Floats, Ints

BATCH = 8


@dataclass(frozen=True)
class Probe:
    """Photos, and what decoding has to know to caption them.

    Attributes:
        pixels: uint8 [photos, size, size, 3].
        prefix: control ids that are fed first.
        end: id that ends a caption.
        never: ids that are never generated.
        sizes: of the caches.
    """

    pixels: npt.NDArray[np.uint8]
    prefix: tuple[int, ...]
    end: int
    never: tuple[int, ...]
    sizes: Dimensions

    @classmethod
    def of(
        cls,
        pixels: npt.NDArray[np.uint8],
        tokens: TokenIds,
        controls: Controls,
        decoding: DecodingDefaults,
        special: Collection[int],
        sizes: Dimensions,
    ) -> Probe:
        """Photos to caption with the default controls; `special` is that of a `Vocabulary`."""
        return cls(
            pixels=pixels,
            prefix=(controls.quality[decoding.quality], controls.length[decoding.length]),
            end=tokens.end,
            never=never_generated(tokens, controls, special),
            sizes=sizes,
        )

    def barred(self, logits: Floats) -> Floats:
        """Logits [..., V] with the ids that are never generated out of reach."""
        masked = logits.copy()
        masked[..., list(self.never)] = -np.inf
        return masked


@dataclass(frozen=True)
class Step:
    """What went into one decoder step and what came out; one beam.

    Attributes:
        tokens: [B, 1]; position: from 0; cross, cache: as in `Engine.step`.
        logits: [B, V].
        counts: [B], whether the row predicts a piece of its caption or the end.
    """

    tokens: Ints
    position: int
    cross: tuple[Floats, Floats]
    cache: tuple[Floats, Floats]
    logits: Floats
    counts: npt.NDArray[np.bool_]

    def place(self, probe: Probe) -> int:
        """Which piece of the caption is predicted, from 1; below 1 within the prefix."""
        return self.position - len(probe.prefix) + 2

    def feeds(self) -> dict[str, npt.NDArray[Any]]:
        """The inputs of the decoder's graph."""
        return {
            "tokens": self.tokens,
            "position": np.array([self.position], np.int64),
            "cross_keys": self.cross[0],
            "cross_values": self.cross[1],
            "keys": self.cache[0],
            "values": self.cache[1],
        }


def batches(pixels: npt.NDArray[np.uint8]) -> Iterator[npt.NDArray[np.uint8]]:
    """`pixels` in batches of at most `BATCH` photos."""
    yield from (pixels[start : start + BATCH] for start in range(0, len(pixels), BATCH))


def empty_cache(sizes: Dimensions, rows: int) -> tuple[Floats, Floats]:
    """Two zero caches [L, rows, T, D]."""
    shape = (sizes.layers, rows, sizes.max_tokens, sizes.cache_width)
    return np.zeros(shape, np.float32), np.zeros(shape, np.float32)


def rollout(engine: Engine, probe: Probe, pixels: npt.NDArray[np.uint8]) -> Iterator[Step]:
    """The steps of greedy captioning of one batch, prefix included, until all rows have ended."""
    cross, rows = engine.encode(pixels), len(pixels)
    cache = empty_cache(probe.sizes, rows)
    going = np.ones(rows, np.bool_)
    last = len(probe.prefix) - 1
    tokens = np.full((rows, 1), probe.prefix[0], np.int64)
    for position in range(probe.sizes.max_tokens):
        logits, after = engine.step(tokens, position, cross, cache)
        counts = going if position >= last else np.zeros_like(going)
        yield Step(tokens, position, cross, cache, logits[:, 0], counts)
        cache = after
        if position < last:
            tokens = np.full((rows, 1), probe.prefix[position + 1], np.int64)
            continue
        tokens = probe.barred(logits[:, 0]).argmax(1)[:, None]
        going = going & (tokens[:, 0] != probe.end)
        if not going.any():
            return
