"""Greedy and beam search in numpy, vectorised over images and beams.

A hypothesis is scored by its log probability divided by `length ** length_penalty`, its length
counted in pieces and the end (Wu et al. 2016, arXiv 1609.08144, without the constant 5). At every
step each image takes the 2K best continuations of its K beams: those among the first K that end
become candidates for the answer, the K best that do not end go on.

Shapes: B images, K beams, V ids, T generated ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from nanocap.bounds import number, whole
from nanocap.errors import EngineError, OptionError
from nanocap.repeats import Repeats

Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Ints: TypeAlias = npt.NDArray[np.int64]

NEVER = -np.inf


class LanguageModel(Protocol):
    """What the search asks for; it holds the state of a batch of images between calls."""

    def start(self) -> Floats:
        """Logits [B, V] of the first piece."""

    def step(self, tokens: Ints, parents: Ints, images: Ints | None) -> Floats:
        """Logits [B', K, V] after one more piece a beam.

        Args:
            tokens: [B', K] the pieces chosen last.
            parents: [B', K] which of the former beams (0 before the first step) each continues.
            images: which of the former images go on [B'], or None where all do.
        """


@dataclass(frozen=True)
class Search:
    """How to search.

    Attributes:
        beams: hypotheses kept an image; 1 is greedy.
        length_penalty: 0 prefers short captions, 1 scores by the mean log probability.
        max_length: most ids generated, the end included.
        end: id that ends a caption; never generated first.
        never: ids that are never generated (padding, unknown, controls).
        n_best: hypotheses wanted an image, at most as many as there are beams.
        repeats: which ids would say a word twice in a row; None lets them.
    """

    beams: int
    length_penalty: float
    max_length: int
    end: int
    never: tuple[int, ...] = ()
    n_best: int = 1
    repeats: Repeats | None = None

    def __post_init__(self) -> None:
        for name in ("beams", "max_length", "n_best"):
            whole(name, getattr(self, name), 1)
        number("length_penalty", self.length_penalty, 0)
        if self.n_best > self.beams:
            raise OptionError(
                f"n_best must be at most the number of beams, {self.beams}, got {self.n_best}"
            )


@dataclass(frozen=True)
class Hypothesis:
    """A sequence found for one image: `ids` and their log probabilities.

    Where `ended`, the last id is the end; else the length ran out.
    """

    ids: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    score: float
    ended: bool


def search(model: LanguageModel, options: Search) -> list[Hypothesis]:
    """The best hypothesis of each image; see `search_all`."""
    return [found[0] for found in search_all(model, options)]


def search_all(model: LanguageModel, options: Search) -> list[tuple[Hypothesis, ...]]:
    """The `n_best` best hypotheses of each image, best first.

    An image is done, and leaves the batch, once K hypotheses ended and none of its beams, were it
    to end now at no cost, would beat the worst of them; or when `max_length` is reached, where
    beams that have not ended count only if nothing ended.

    Returns:
        for each of B images, in order, at least one; fewer than `n_best` where fewer ended.

    Raises:
        EngineError: the model gave no numbers (NaN).
    """
    logits = model.start()[:, None, :]  # [B, 1, V]
    count, width = len(logits), options.beams
    barred = _barred(logits.shape[-1], options)
    mask = barred.copy()
    mask[options.end] = NEVER  # an empty caption is no answer

    answers = _Answers.empty(count, options.n_best, options.max_length)
    live = np.arange(count)  # [B'] the images still searched
    totals = np.zeros((count, 1))  # [B', K] log probability of each beam
    ids = np.zeros((count, 1, 0), dtype=np.int64)  # [B', K, t]
    logs = np.zeros((count, 1, 0))  # [B', K, t] log probability of each id
    ended = np.full((count, width), NEVER)  # [B', K] best scores of hypotheses that ended

    for length in range(1, options.max_length + 1):
        parents, tokens, steps = _continuations(  # [B', 2K]
            totals, logits + mask, 2 * width, _again(ids, options)
        )
        rows = np.arange(len(live))[:, None]
        sums = totals[rows, parents] + steps  # [B', 2K] descending
        scores = sums / length**options.length_penalty

        stops = tokens == options.end
        first = stops & (np.arange(2 * width) < width)
        stopping = np.where(first, scores, NEVER)
        answers.offer(live, stopping, ids, logs, parents, tokens, steps, ended=True)
        ended = -np.sort(-np.concatenate([ended, stopping], axis=1), axis=1)[:, :width]

        # A stable sort moves the ends behind the rest and keeps the order of both.
        kept = np.argsort(stops, axis=1, kind="stable")[:, :width]
        parents, tokens, steps = parents[rows, kept], tokens[rows, kept], steps[rows, kept]
        totals, scores = sums[rows, kept], scores[rows, kept]  # [B', K]

        if length == options.max_length:
            unended = np.where(np.isneginf(ended[:, :1]), scores, NEVER)
            answers.offer(live, unended, ids, logs, parents, tokens, steps, ended=False)
            break
        going = np.flatnonzero(scores[:, 0] > ended[:, -1])
        if not going.size:
            break
        ids = np.concatenate([ids[rows, parents], tokens[..., None]], axis=2)
        logs = np.concatenate([logs[rows, parents], steps[..., None]], axis=2)
        images = None
        if going.size < live.size:
            images = going
            live, totals, ended = live[going], totals[going], ended[going]
            ids, logs, parents, tokens = ids[going], logs[going], parents[going], tokens[going]
        logits = model.step(tokens, parents, images)
        mask = barred
    return answers.hypotheses()


def greedy(model: LanguageModel, options: Search) -> Iterator[tuple[int, float]]:
    """The likeliest piece at each step, as it is found, for a batch of one image.

    Yields an id and its log probability, the end's included; the same as `search` with one beam.
    """
    logits = model.start()[:, None, :]
    barred = _barred(logits.shape[-1], options)
    mask = barred.copy()
    mask[options.end] = NEVER
    parents = np.zeros((1, 1), dtype=np.int64)
    ids = np.zeros((1, 1, 0), dtype=np.int64)
    for length in range(1, options.max_length + 1):
        again = _again(ids, options)
        _, tokens, steps = _continuations(np.zeros((1, 1)), logits + mask, 1, again)
        yield int(tokens[0, 0]), float(steps[0, 0])
        if tokens[0, 0] == options.end or length == options.max_length:
            return
        ids = np.concatenate([ids, tokens[..., None]], axis=2)
        logits = model.step(tokens, parents, None)
        mask = barred


@dataclass
class _Answers:
    """The N best hypotheses so far of each image, best first, as arrays."""

    scores: Floats  # [B, N]
    lengths: Ints  # [B, N]
    ids: Ints  # [B, N, T]
    logs: Floats  # [B, N, T]
    ended: npt.NDArray[np.bool_]  # [B, N]

    @classmethod
    def empty(cls, count: int, most: int, longest: int) -> _Answers:
        return cls(
            scores=np.full((count, most), NEVER),
            lengths=np.zeros((count, most), dtype=np.int64),
            ids=np.zeros((count, most, longest), dtype=np.int64),
            logs=np.zeros((count, most, longest)),
            ended=np.zeros((count, most), dtype=np.bool_),
        )

    def offer(
        self,
        live: Ints,
        scores: Floats,  # [B', C]
        ids: Ints,  # [B', K, t]
        logs: Floats,  # [B', K, t]
        parents: Ints,  # [B', C]
        tokens: Ints,  # [B', C]
        steps: Floats,  # [B', C]
        *,
        ended: bool,
    ) -> None:
        """Keep the best of C continuations of each live image where they beat what is held."""
        most, past = self.scores.shape[1], ids.shape[2]
        for place in range(most):  # the best continuation first, then the next: most are few
            column = scores.argmax(axis=1)
            found = scores[np.arange(len(live)), column]
            rows = np.flatnonzero(found > self.scores[live, -1])
            if not rows.size:
                return
            column, where = column[rows], live[rows]
            parent = parents[rows, column]
            # behind all that is at least as good; the worst falls off the end
            rank = (self.scores[where] >= found[rows, None]).sum(axis=1)
            held = np.arange(most)
            shifted = np.where(held > rank[:, None], held - 1, held)  # [rows, N]
            for array in (self.scores, self.lengths, self.ids, self.logs, self.ended):
                array[where] = array[where[:, None], shifted]
            self.scores[where, rank] = found[rows]
            self.lengths[where, rank] = past + 1
            self.ended[where, rank] = ended
            self.ids[where, rank, :past] = ids[rows, parent]
            self.ids[where, rank, past] = tokens[rows, column]
            self.logs[where, rank, :past] = logs[rows, parent]
            self.logs[where, rank, past] = steps[rows, column]
            if place + 1 < most:
                scores = scores.copy()
                scores[rows, column] = NEVER

    def hypotheses(self) -> list[tuple[Hypothesis, ...]]:
        """Of each image, best first."""
        return [
            tuple(
                Hypothesis(tuple(ids[:n].tolist()), tuple(logs[:n].tolist()), float(s), bool(end))
                for ids, logs, n, s, end in zip(*image, strict=True)
                if n
            )
            for image in zip(
                self.ids, self.logs, self.lengths, self.scores, self.ended, strict=True
            )
        ]


def _barred(vocabulary: int, options: Search) -> Floats:
    """What is added to the logits so that the ids of `never` have no chance. [V]"""
    barred = np.zeros(vocabulary, dtype=np.float32)
    barred[list(options.never)] = NEVER
    return barred


def _again(ids: Ints, options: Search) -> list[tuple[int, int, int]]:
    """Image, beam and id of each piece that would say a word of `ids` [B, K, t] twice in a row."""
    if options.repeats is None:
        return []
    return [
        (image, beam, barred)
        for image, beams in enumerate(ids.tolist())
        for beam, past in enumerate(beams)
        for barred in options.repeats.barred(past)
    ]


def _continuations(
    totals: Floats, logits: Floats, most: int, again: list[tuple[int, int, int]]
) -> tuple[Ints, Ints, Floats]:
    """The `most` best continuations of each image over all its beams, best first.

    Args:
        totals: [B, K] log probability of each beam.
        logits: [B, K, V].
        again: image, beam and id of those that are left out. Their probability goes to no other:
            where a model would repeat itself, it is less sure of what it says instead.

    Returns:
        beam, id and log probability of the step, [B, most] each. Where there are not so many, the
        rest has log probability minus infinity.
    """
    top = logits.max(axis=2, keepdims=True)
    if not np.isfinite(top).all():
        raise EngineError("the model gave no numbers (NaN); its artifact is damaged, use another")
    log_sum = top + np.log(np.exp(logits - top).sum(axis=2, keepdims=True))  # [B, K, 1]

    for place in again:
        logits[place] = NEVER
    # The best of all beams are among the best of each: narrow V down before comparing beams.
    few = min(most, logits.shape[2])
    tokens = np.argpartition(logits, -few, axis=2)[..., -few:]
    tokens.sort(axis=2)  # so that ties go to the lower id, whatever the partition's order
    steps = (np.take_along_axis(logits, tokens, axis=2) - log_sum).astype(np.float64)
    sums = (totals[:, :, None] + steps).reshape(len(tokens), -1)  # [B, K * few]
    order = np.argsort(-sums, axis=1, kind="stable")[:, :most]
    parents = order // few
    tokens = np.take_along_axis(tokens.reshape(len(tokens), -1), order, axis=1)
    steps = np.take_along_axis(steps.reshape(len(steps), -1), order, axis=1)
    short = most - order.shape[1]
    if short:
        parents = np.pad(parents, ((0, 0), (0, short)))
        tokens = np.pad(tokens, ((0, 0), (0, short)))
        steps = np.pad(steps, ((0, 0), (0, short)), constant_values=NEVER)
    return parents, tokens, steps
