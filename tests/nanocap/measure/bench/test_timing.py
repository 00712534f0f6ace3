"""Tasks in turns, on a clock that only the tasks move."""

from __future__ import annotations

import pytest

from nanocap.errors import OptionError
from nanocap.measure.bench.timing import Task, Timing, interleave


class World:
    """A clock, and tasks that take as long as they are told."""

    def __init__(self) -> None:
        self.now = 100.0
        self.ran: list[str] = []

    def task(self, key: str, seconds: list[float], calls: int = 1) -> Task[str]:
        left = iter(seconds)

        def run() -> None:
            self.ran.append(key)
            self.now += next(left)

        return Task(key, run, calls)

    def clock(self) -> float:
        return self.now


def test_quantiles_of_known_samples() -> None:
    timing = Timing(tuple(float(ms) for ms in range(100, -1, -1)))
    assert timing.p50 == 50.0
    assert timing.p95 == pytest.approx(95.0)
    assert Timing((1.0, 2.0)).p50 == 1.5
    assert Timing((1.0, 2.0)).p95 == pytest.approx(1.95)
    assert Timing((7.0,)).p95 == 7.0


def test_each_call_is_timed_alone_and_the_warm_up_is_not() -> None:
    world = World()
    tasks = [world.task("a", [9.0, 0.001, 0.002, 0.003]), world.task("b", [9.0, 1.0, 2.0, 3.0])]
    timings = interleave(tasks, 3, clock=world.clock)
    assert timings["a"].samples_ms == pytest.approx((1.0, 2.0, 3.0))
    assert timings["b"].p50 == pytest.approx(2000.0)


def test_tasks_take_turns_and_each_round_starts_at_another() -> None:
    world = World()
    tasks = [world.task(key, [1.0] * 4) for key in "abc"]
    rounds = []
    interleave(tasks, 3, clock=world.clock, after_round=lambda: rounds.append("".join(world.ran)))
    assert rounds[-1] == "abc" + "abc" + "bca" + "cab"
    assert [len(ran) for ran in rounds] == [3, 6, 9, 12], "told after the warm-up and each round"


def test_the_first_of_several_calls_does_not_count() -> None:
    """It finds the caches full of the task before it."""
    world = World()
    cold, warm = 5.0, 1.0
    task = world.task("step", [cold, cold, warm, warm, cold, warm, warm], calls=2)
    assert interleave([task], 2, clock=world.clock)["step"].samples_ms == (1000.0,) * 4


def test_a_slow_spell_leaves_the_ratio_of_medians_alone() -> None:
    world = World()
    spell = [1.0, 1.0, 40.0, 40.0, 1.0, 1.0]
    fast = world.task("fast", spell)
    slow = world.task("slow", [3 * seconds for seconds in spell])
    timings = interleave([fast, slow], 5, clock=world.clock)
    assert timings["slow"].p50 / timings["fast"].p50 == pytest.approx(3.0)


def test_no_rounds() -> None:
    with pytest.raises(OptionError, match="at least 1, got 0"):
        interleave([], 0)
