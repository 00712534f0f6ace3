"""Tasks in turns, so that a noisy machine disturbs all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from nanocap.errors import OptionError

Clock = Callable[[], float]  # seconds from some start
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Timing:
    """How long one task took.

    Attributes:
        samples_ms: wall-clock milliseconds of each counted call, in the order of measuring.
    """

    samples_ms: tuple[float, ...]

    def quantile(self, part: float) -> float:
        """Milliseconds that `part` (0 to 1) of the calls stay below, interpolated linearly."""
        return float(np.quantile(self.samples_ms, part))

    @property
    def p50(self) -> float:
        """The median, in milliseconds."""
        return self.quantile(0.5)

    @property
    def p95(self) -> float:
        """What 95 of 100 calls stay below, in milliseconds."""
        return self.quantile(0.95)


@dataclass(frozen=True)
class Task(Generic[K]):
    """Something to measure.

    Attributes:
        key: what its timing is found by.
        run: the call; what it returns is thrown away.
        calls: counted calls a turn. Where there are several, one that does not count comes first:
            it finds the caches full of the task before it, as no later call does.
    """

    key: K
    run: Callable[[], object]
    calls: int = 1


def interleave(
    tasks: Sequence[Task[K]],
    rounds: int,
    *,
    warm_up: int = 1,
    clock: Clock = time.perf_counter,
    after_round: Callable[[], None] = lambda: None,
) -> dict[K, Timing]:
    """Run every task `rounds` times in turns, each round from another task on.

    Args:
        tasks: with keys of their own each.
        rounds: at least 1.
        warm_up: calls of each task before the first round; they do not count.
        clock: seconds.
        after_round: called after each round and after the warm-up, to show progress.

    Returns:
        `rounds * task.calls` samples by key.

    Raises:
        OptionError: `rounds` is below 1.
    """
    if rounds < 1:
        raise OptionError(f"repeat must be at least 1, got {rounds}")
    samples: dict[K, list[float]] = {task.key: [] for task in tasks}
    assert len(samples) == len(tasks), "two tasks have one key"
    for task in tasks:
        for _ in range(warm_up):
            task.run()
    after_round()
    for turn in range(rounds):
        first = turn % max(1, len(tasks))
        for task in (*tasks[first:], *tasks[:first]):
            if task.calls > 1:
                task.run()
            for _ in range(task.calls):
                start = clock()
                task.run()
                samples[task.key].append(1000 * (clock() - start))
        after_round()
    return {key: Timing(tuple(values)) for key, values in samples.items()}
