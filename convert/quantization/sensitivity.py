"""What int8 makes of a graph, chosen by measurement: the way of calibrating, and what stays float.

Every way of choosing ranges is tried on photos that none was calibrated on, and the one that loses
least is kept. Then each block is left in float for once. Those that gain more than chance would
stay so, the most gaining first, as long as file and time allow. The budgets are counted in bytes
and multiplications, not in seconds: the same checkpoint gives the same bundle on a busy machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import onnx

from nanocap.convert.quantization.blocks import Block
from nanocap.convert.quantization.divergence import Scores
from nanocap.convert.quantization.int8 import Choice, Quantizable
from nanocap.convert.quantization.ranges import METHODS

WORTH = 1e-3  # nats a piece; less is not heard in any caption
CERTAIN = 3  # standard errors over photos: a dozen or two of blocks are tried
FLOAT_BYTES = 1_000_000  # by which a graph may grow
FLOAT_SHARE = 0.1  # of its multiplications; int8 is to stay 1.6 times as fast as fp32

Measure = Callable[[onnx.ModelProto], Scores]
Count = Callable[[int, int], None]


@dataclass(frozen=True)
class Found:
    """What was chosen and why.

    Attributes:
        choice: the best that was found.
        scores: nats a piece from fp32, by method, with nothing left in float.
        score: of the choice.
        gains: nats a piece by which each block alone betters the method, by name; those that the
            budgets allow. Empty where the method itself loses less than `WORTH`.
        photos: that it was measured on.
    """

    choice: Choice
    scores: Mapping[str, float]
    score: float
    gains: Mapping[str, float]
    photos: int

    @property
    def gained(self) -> float:
        """By what stays float."""
        return self.scores[self.choice.method] - self.score

    def describe(self) -> str:
        """One line."""
        tried = ", ".join(f"{name} {score:.5f}" for name, score in self.scores.items())
        if self.choice.floats:
            left = f"{', '.join(self.choice.floats)} in float, which gains {self.gained:.5f}"
        elif self.gains:
            left = (
                f"nothing in float, no block gains enough (at most {max(self.gains.values()):.5f})"
            )
        else:
            left = f"nothing in float, there is less than {WORTH:g} to gain"
        return f"{tried} nats a piece from fp32; {self.choice.method}, and {left}"

    def to_dict(self) -> dict[str, Any]:
        """For a manifest."""
        return {
            "method": self.choice.method,
            "nats_a_piece": {name: _short(score) for name, score in self.scores.items()},
            "photos": self.photos,
            "in_float": ", ".join(self.choice.floats) or "nothing",
            "gained": _short(self.gained),
            "largest_gain_of_a_block": _short(max(self.gains.values(), default=0.0)),
        }


def search(graph: Quantizable, measure: Measure, count: Count = lambda done, total: None) -> Found:
    """The best of what can be made of a graph; of equals the first.

    Args:
        measure: what a candidate loses, photo by photo.
        count: takes how many candidates are measured, and of how many.
    """
    offered = [block for block in graph.blocks() if _affordable([block])]
    trial = _Trial(graph, measure, count, len(METHODS) + len(offered))
    tried = {method: trial(Choice(method)) for method in METHODS}
    method = min(tried, key=lambda name: float(tried[name].mean()))
    scores = {name: float(found.mean()) for name, found in tried.items()}
    now = tried[method]
    if now.mean() < WORTH:
        count(trial.total, trial.total)
        return Found(Choice(method), scores, float(now.mean()), {}, len(now))
    alone = {block.name: now - trial(Choice(method, (block.name,))) for block in offered}
    gains = {name: float(found.mean()) for name, found in alone.items()}
    left: list[Block] = []
    for block in sorted(offered, key=lambda block: -gains[block.name]):
        with_it = [*left, block]
        if not (_pays(alone[block.name]) and _affordable(with_it)):
            continue
        found = trial(Choice(method, tuple(one.name for one in with_it)))
        if _pays(now - found):
            left, now = with_it, found
    chosen = Choice(method, tuple(block.name for block in left))
    return Found(chosen, scores, float(now.mean()), gains, len(now))


@dataclass
class _Trial:
    """Measures candidates and counts them."""

    graph: Quantizable
    measure: Measure
    count: Count
    total: int
    done: int = 0

    def __call__(self, choice: Choice) -> Scores:
        found = self.measure(self.graph.quantized(choice))
        self.done += 1
        self.total = max(self.total, self.done)
        self.count(self.done, self.total)
        return found


def _pays(gain: Scores) -> bool:
    """Whether photo by photo it gains what is worth a block, and not by chance."""
    error = gain.std() / max(len(gain) - 1, 1) ** 0.5
    return bool(gain.mean() >= WORTH and gain.mean() > CERTAIN * error)


def _affordable(blocks: list[Block]) -> bool:
    size, share = sum(block.bytes for block in blocks), sum(block.share for block in blocks)
    return size <= FLOAT_BYTES and share <= FLOAT_SHARE


def _short(value: float) -> float:
    return float(f"{value:.3g}")
