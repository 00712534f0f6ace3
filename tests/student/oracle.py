"""What the search and the rule against repeats are compared with: the same, in numpy and loops.

It shares no line with them, and sums in float64. An image that is done leaves the batch here, and
stays in it there.

Shapes: B images, K beams, V ids, T generated ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Ints: TypeAlias = npt.NDArray[np.int64]
Model: TypeAlias = Callable[[Ints, Ints], Floats]
"""Logits [B', K, V] of what follows ids [B', K, t] of the images [B']."""

NEVER = -np.inf
# How a phrase may not come again: its length in pieces, and the joining pieces in between.
WAYS = (*((length, 0) for length in range(1, 7)), *((length, 1) for length in range(1, 5)))


@dataclass(frozen=True)
class Repeats:
    """Which piece would say a word or a phrase twice in a row.

    Attributes:
        starts: of each piece, whether it starts a word; a phrase does.
        joins: ids of joining words.
    """

    starts: tuple[bool, ...]
    joins: frozenset[int]

    @classmethod
    def of(cls, pieces: Sequence[str]) -> Repeats:
        """The rule for the pieces of a vocabulary, in the order of their ids."""
        return cls(
            starts=tuple(piece.startswith("\u2581") for piece in pieces),
            joins=frozenset(i for i, p in enumerate(pieces) if p in ("\u2581and", "\u2581or")),
        )

    def barred(self, ids: Sequence[int]) -> set[int]:
        """The ids that may not follow `ids`: each would be the last piece of a repetition."""
        found, count = set(), len(ids)
        for length, between in WAYS:
            first = count - 2 * length + 1 - between  # where the phrase begins that would return
            last = first + length - 1
            if (
                first >= 0
                and self.starts[ids[first]]
                and (not between or ids[last + 1] in self.joins)
                and ids[first:last] == ids[last + 1 + between :]
            ):
                found.add(ids[last])
        return found


@dataclass(frozen=True)
class Options:
    """How to search.

    Attributes:
        beams: hypotheses kept an image; 1 is greedy.
        length_penalty: 0 prefers short captions, 1 scores by the mean log probability.
        longest: most ids generated, the end included.
        end: id that ends a caption; never generated first.
        never: ids that are never generated (padding, unknown, controls).
        repeats: which ids would say a word twice in a row; None lets them.
    """

    beams: int
    length_penalty: float
    longest: int
    end: int
    never: tuple[int, ...] = ()
    repeats: Repeats | None = None


@dataclass(frozen=True)
class Hypothesis:
    """A sequence found for one image: `ids`, the end among them, and their log probabilities."""

    ids: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    score: float


def search_all(model: Model, images: int, options: Options) -> list[list[Hypothesis]]:
    """The K best hypotheses of each image, best first, at least one.

    An image is done once K hypotheses ended and none of its beams, were it to end now at no cost,
    would beat the worst of them; or when `longest` is reached, where beams that have not ended
    count only if nothing ended.
    """
    width = options.beams
    answers: list[list[Hypothesis]] = [[] for _ in range(images)]
    live = np.arange(images)  # [B'] the images still searched
    totals = np.zeros((images, 1))  # [B', K] log probability of each beam
    ids = np.zeros((images, 1, 0), dtype=np.int64)  # [B', K, t]
    logs = np.zeros((images, 1, 0))  # [B', K, t] log probability of each id

    for length in range(1, options.longest + 1):
        logits = model(live, ids).astype(np.float64)
        logits[..., options.never if length > 1 else (*options.never, options.end)] = NEVER
        parents, tokens, steps = _continuations(totals, logits, ids, options)  # [B', 2K]
        rows = np.arange(len(live))[:, None]
        totals = totals[rows, parents] + steps  # [B', 2K] descending
        ids = np.concatenate([ids[rows, parents], tokens[..., None]], axis=2)
        logs = np.concatenate([logs[rows, parents], steps[..., None]], axis=2)
        scores = totals / length**options.length_penalty

        stops = tokens == options.end
        first = stops & np.isfinite(totals) & (np.arange(2 * width) < width)
        _offer(answers, live, first, ids, logs, scores, width)
        # A stable sort moves the ends behind the rest and keeps the order of both.
        kept = np.argsort(stops, axis=1, kind="stable")[:, :width]
        totals, ids, logs = totals[rows, kept], ids[rows, kept], logs[rows, kept]
        scores = scores[rows, kept]
        if length == options.longest:
            cut = np.isfinite(totals) & [[not answers[image]] for image in live]
            _offer(answers, live, cut, ids, logs, scores, width)
            break
        worst = [answers[i][-1].score if len(answers[i]) == width else NEVER for i in live]
        going = np.flatnonzero(scores[:, 0] > worst)
        live, totals, ids, logs = live[going], totals[going], ids[going], logs[going]
        if not going.size:
            break
    return answers


def _offer(
    answers: list[list[Hypothesis]],
    live: Ints,
    chosen: npt.NDArray[np.bool_],  # [B', C]
    ids: Ints,  # [B', C, t]
    logs: Floats,
    scores: Floats,  # [B', C]
    most: int,
) -> None:
    """Puts what is chosen among the `most` answers, behind all that is at least as good."""
    for place in map(tuple, np.argwhere(chosen)):
        found = answers[live[place[0]]]
        found.append(
            Hypothesis(
                tuple(ids[place].tolist()), tuple(logs[place].tolist()), float(scores[place])
            )
        )
        found.sort(key=lambda one: -one.score)
        del found[most:]


def _continuations(
    totals: Floats, logits: Floats, ids: Ints, options: Options
) -> tuple[Ints, Ints, Floats]:
    """The 2K best continuations of each image over all its beams, best first: beam, id and log
    probability of the step, [B, 2K] each. Where there are not so many, the rest has minus infinity.

    The probability of what would repeat goes to no other: where a model would repeat itself, it is
    less sure of what it says instead.
    """
    top = logits.max(axis=2, keepdims=True)
    steps = logits - top - np.log(np.exp(logits - top).sum(axis=2, keepdims=True))
    if options.repeats is not None:
        for image, beam in np.ndindex(ids.shape[:2]):
            steps[image, beam, list(options.repeats.barred(ids[image, beam].tolist()))] = NEVER
    most, vocabulary = 2 * options.beams, steps.shape[2]
    steps = np.pad(steps, ((0, 0), (0, most), (0, 0)), constant_values=NEVER)
    sums = np.pad(totals, ((0, 0), (0, most)))[..., None] + steps
    order = np.argsort(-sums.reshape(len(sums), -1), axis=1, kind="stable")[:, :most]
    parents, tokens = order // vocabulary, order % vocabulary
    steps = np.take_along_axis(steps.reshape(len(sums), -1), order, axis=1)
    real = np.isfinite(steps)
    return np.where(real, parents, 0), np.where(real, tokens, 0), steps
