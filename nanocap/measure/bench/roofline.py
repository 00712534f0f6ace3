"""How near a stage comes to what the machine can do at best.

Williams, Waterman and Patterson, "Roofline" (2009): a stage takes at least as long as its
arithmetic at the machine's fastest rate, and at least as long as its bytes at the machine's
bandwidth. Both rates are measured, in the same run as the stage. The limit takes the bandwidth of
the main memory; a model small enough to stay in a cache can do better (a share above 1), and the
bandwidth of a small copy gives the limit that holds for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from nanocap.measure.bench.counts import Counts


@dataclass(frozen=True)
class Peaks:
    """What the machine does at best with `threads` threads, a second.

    Attributes:
        float_multiply_adds: of a large fp32 matrix product.
        int8_multiply_adds: of a large product of unsigned and signed bytes.
        memory_bytes: read and written by a copy far larger than any cache.
        cache_bytes: read and written by a copy of a few megabytes, as large as a model's weights.
    """

    threads: int
    float_multiply_adds: float
    int8_multiply_adds: float
    memory_bytes: float
    cache_bytes: float

    @property
    def float_gflops(self) -> float:
        """Billions of operations a second: a multiply-add is two."""
        return 2e-9 * self.float_multiply_adds

    @property
    def int8_gops(self) -> float:
        """Billions of operations a second: a multiply-add is two."""
        return 2e-9 * self.int8_multiply_adds

    @property
    def memory_gigabytes(self) -> float:
        """Billions of bytes a second."""
        return 1e-9 * self.memory_bytes

    @property
    def cache_gigabytes(self) -> float:
        """Billions of bytes a second."""
        return 1e-9 * self.cache_bytes


@dataclass(frozen=True)
class Roofline:
    """The counts of a stage and its lower limits.

    Attributes:
        counts: of its graph.
        compute_ms: of its arithmetic.
        memory_ms: of its bytes, from the main memory.
        cache_ms: of its bytes, were they all in a cache.
    """

    counts: Counts
    compute_ms: float
    memory_ms: float
    cache_ms: float

    @classmethod
    def of(cls, counts: Counts, peaks: Peaks) -> Roofline:
        """The limits of a graph on this machine."""
        seconds = counts.int8_multiply_adds / peaks.int8_multiply_adds
        seconds += counts.float_multiply_adds / peaks.float_multiply_adds
        return cls(
            counts=counts,
            compute_ms=1000 * seconds,
            memory_ms=1000 * counts.moved_bytes / peaks.memory_bytes,
            cache_ms=1000 * counts.moved_bytes / peaks.cache_bytes,
        )

    @property
    def limit_ms(self) -> float:
        """Milliseconds; no run can be faster, caches aside."""
        return max(self.compute_ms, self.memory_ms)

    def share(self, ms: float) -> float:
        """How much of the limit a run of `ms` milliseconds reaches; 1 is all."""
        return self.limit_ms / ms

    def cached_share(self, ms: float) -> float:
        """The same of the limit that holds where all bytes are in a cache."""
        return max(self.compute_ms, self.cache_ms) / ms

    def gops(self, ms: float) -> float:
        """Billions of operations a second in a run of `ms` milliseconds."""
        return 2e-6 * self.counts.multiply_adds / ms
