"""How far a candidate's captions are from fp32's, by the odds that it gives each next piece."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from nanocap.convert.graphs.joining import SearchGraphs
from nanocap.convert.graphs.sessions import open_session
from nanocap.convert.probe import Floats, Probe, batches, forced, rollout
from nanocap.runtime.engines.onnx import OnnxEngine

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Said:
    """One position of the reference's captions: what went in, and the odds of what came out."""

    tokens: npt.NDArray[np.int64]
    counts: npt.NDArray[np.bool_]
    log_odds: Scores


class Judge:
    """Kullback and Leibler's divergence of a candidate from fp32, in nats a piece, photo by photo.

    Both are fed fp32's greedy captions. Compared with CIDEr this needs no captions of people,
    tells from a few dozen photos what CIDEr does not from a thousand, and takes a second.

    Args:
        encoder, decoder: fp32.
        search: that goes with them.
        probe: photos to judge on; none that the candidates were calibrated on.
    """

    def __init__(
        self,
        encoder: onnx.ModelProto,
        decoder: onnx.ModelProto,
        search: SearchGraphs,
        probe: Probe,
    ) -> None:
        self._probe, self._search = probe, search
        self._begin = open_session(search.begin(encoder).SerializeToString())
        self._step = open_session(search.step(decoder).SerializeToString())
        engine = OnnxEngine(self._begin, self._step)
        self._said = [
            [
                _Said(step.state["tokens"], step.counts, _log_odds(step.logits))
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
        session = open_session(self._search.begin(candidate).SerializeToString())
        return self._divergence(OnnxEngine(session, self._step))

    def decoder(self, candidate: onnx.ModelProto) -> Scores:
        """[photos], with fp32's encoder."""
        session = open_session(self._search.step(candidate).SerializeToString())
        return self._divergence(OnnxEngine(self._begin, session))

    def _divergence(self, engine: OnnxEngine) -> Scores:
        found = []
        for pixels, said in zip(batches(self._probe.pixels), self._said, strict=True):
            state = self._probe.begin(engine, pixels)
            total, pieces = np.zeros(len(pixels)), np.zeros(len(pixels))
            for one in said:
                state = forced(engine, state, one.tokens)
                apart = one.log_odds - _log_odds(state["logits"][:, 0])
                total += np.where(one.counts, (np.exp(one.log_odds) * apart).sum(1), 0)
                pieces += one.counts
            found.append(total / pieces)
        return np.concatenate(found)


def _log_odds(logits: Floats) -> Scores:
    """Logarithms of the probabilities, [B, V]."""
    x = logits.astype(np.float64)
    x -= x.max(1, keepdims=True)
    return x - np.log(np.exp(x).sum(1, keepdims=True))
