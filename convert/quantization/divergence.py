"""How far a candidate's captions are from fp32's, by the odds that it gives each next piece."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from nanocap.convert.onnx.sessions import open_session
from nanocap.convert.rollout import Probe, batches, empty_cache, rollout
from nanocap.runtime.engines import Floats, Ints
from nanocap.runtime.engines.onnx import OnnxEngine

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Said:
    """One position of the reference's captions: what went in, and the odds of what came out."""

    tokens: Ints
    position: int
    counts: npt.NDArray[np.bool_]
    log_odds: Scores


class Judge:
    """Kullback and Leibler's divergence of a candidate from fp32, in nats a piece, photo by photo.

    Both are fed fp32's greedy captions. Compared with CIDEr this needs no captions of people,
    tells from a few dozen photos what CIDEr does not from a thousand, and takes a second.

    Args:
        encoder, decoder: fp32.
        probe: photos to judge on; none that the candidates were calibrated on.
    """

    def __init__(self, encoder: onnx.ModelProto, decoder: onnx.ModelProto, probe: Probe) -> None:
        self._probe = probe
        self._encoder = open_session(encoder.SerializeToString())
        self._decoder = open_session(decoder.SerializeToString())
        engine = OnnxEngine(self._encoder, self._decoder)
        self._said = [
            [
                _Said(step.tokens, step.position, step.counts, _log_odds(step.logits))
                for step in rollout(engine, probe, pixels)
            ]
            for pixels in batches(probe.pixels)
        ]

    @property
    def photos(self) -> int:
        """How many it judges on."""
        return len(self._probe.pixels)

    def encoder(self, candidate: onnx.ModelProto) -> Scores:
        """[photos], with fp32's decoder."""
        session = open_session(candidate.SerializeToString())
        return self._divergence(OnnxEngine(session, self._decoder))

    def decoder(self, candidate: onnx.ModelProto) -> Scores:
        """[photos], with fp32's encoder."""
        session = open_session(candidate.SerializeToString())
        return self._divergence(OnnxEngine(self._encoder, session))

    def _divergence(self, engine: OnnxEngine) -> Scores:
        found = []
        for pixels, said in zip(batches(self._probe.pixels), self._said, strict=True):
            cross, cache = engine.encode(pixels), empty_cache(self._probe.sizes, len(pixels))
            total, pieces = np.zeros(len(pixels)), np.zeros(len(pixels))
            for one in said:
                logits, cache = engine.step(one.tokens, one.position, cross, cache)
                apart = one.log_odds - _log_odds(logits[:, 0])
                total += np.where(one.counts, (np.exp(one.log_odds) * apart).sum(1), 0)
                pieces += one.counts
            found.append(total / pieces)
        return np.concatenate(found)


def _log_odds(logits: Floats) -> Scores:
    """Logarithms of the probabilities, [B, V]."""
    x = logits.astype(np.float64)
    x -= x.max(1, keepdims=True)
    return x - np.log(np.exp(x).sum(1, keepdims=True))
