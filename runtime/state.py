"""The decoder's state over a search: which images and beams are live, and their caches."""

from __future__ import annotations

import numpy as np

from nanocap.bundle.manifest import Dimensions
from nanocap.runtime.engines import Engine, Floats, Ints


class DecoderState:
    """A batch of encoded images and a prefix, as the language model that `decoding` asks for.

    Args:
        engine: runs the decoder.
        cross: what `engine.encode` gave, [layers, B, visual tokens, width] each.
        prefix: ids fed before the first piece: quality, length.
        sizes: of the caches.
    """

    def __init__(
        self,
        engine: Engine,
        cross: tuple[Floats, Floats],
        prefix: tuple[int, ...],
        sizes: Dimensions,
    ) -> None:
        self._engine = engine
        self._cross = cross
        self._prefix = prefix
        self._count = cross[0].shape[1]  # images
        self._beams = 1
        self._position = 0
        shape = (sizes.layers, self._count, sizes.max_tokens, sizes.cache_width)
        self._cache = (np.zeros(shape, np.float32), np.zeros(shape, np.float32))

    def start(self) -> Floats:
        """Logits [B, V] after the prefix."""
        for token in self._prefix:
            logits = self._feed(np.full((self._count, 1), token, dtype=np.int64))
        return logits[:, 0]

    def step(self, tokens: Ints, parents: Ints, images: Ints | None) -> Floats:
        """Logits [B', K, V]; see `LanguageModel.step`."""
        if images is not None:
            self._cross = (self._cross[0].take(images, axis=1), self._cross[1].take(images, axis=1))
        kept = np.arange(self._count) if images is None else images
        rows = (kept[:, None] * self._beams + parents).ravel()
        if rows.size != self._count * self._beams or (rows != np.arange(rows.size)).any():
            self._cache = (self._cache[0].take(rows, axis=1), self._cache[1].take(rows, axis=1))
        self._count, self._beams = tokens.shape
        return self._feed(np.ascontiguousarray(tokens))

    def _feed(self, tokens: Ints) -> Floats:
        logits, self._cache = self._engine.step(tokens, self._position, self._cross, self._cache)
        self._position += 1
        return logits
