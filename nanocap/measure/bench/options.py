"""What to measure, and how much."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nanocap.errors import OptionError
from nanocap.measure.bench.stages import Effort


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        rounds: turns of everything.
        large, small: width and height of the drawn photos.
        photos: small ones that captions take in turns.
        side: of the matrices whose products are the peaks.
        block_bytes: of the memory whose copy is the bandwidth.
        effort: calls a turn.
        profiled: runs under the profiler.
    """

    rounds: int
    large: tuple[int, int]
    small: tuple[int, int]
    photos: int
    side: int
    block_bytes: int
    effort: Effort
    profiled: int


FULL = Scale(
    rounds=20,
    large=(4000, 3000),
    small=(640, 480),
    photos=8,
    side=1024,
    block_bytes=128 << 20,
    effort=Effort(peaks=3, begin=4, step=20, batch=8),
    profiled=50,
)
QUICK = Scale(
    rounds=3,
    large=(1600, 1200),
    small=(320, 240),
    photos=2,
    side=512,
    block_bytes=32 << 20,
    effort=Effort(peaks=1, begin=1, step=4, batch=4),
    profiled=5,
)


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
        bundle: a folder or a `.zip`.
        threads: each number to measure at.
        scale: how much.
        artifacts: their names; none stands for every one.
        photo: instead of drawn ones.

    Raises:
        OptionError: a number of threads is below 1, or there is none.
    """

    bundle: Path
    threads: tuple[int, ...]
    scale: Scale = FULL
    artifacts: tuple[str, ...] = ()
    photo: Path | None = None

    def __post_init__(self) -> None:
        if min(self.threads, default=0) < 1:
            raise OptionError(f"threads must be numbers from 1 on, got {list(self.threads)}")
