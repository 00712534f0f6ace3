"""Progress of what takes long: a line on a terminal that gives way to other output, or a few."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")

FEW = 4  # up to so many, what is done is itself the progress
CLEAR_LINE = "\r\x1b[K"
REDRAWN = 0.1  # seconds between two states of the line
FIRST, MOST = 10.0, 60.0  # seconds to the first plain line, and between two at most


class Progress:
    """`12/340  3.1/s  1:46 left`, redrawn in place.

    Shown only when standard error is a terminal and there are more than a few things to do.
    Elsewhere, such as in a file of messages, plain lines come now and then if they are asked for:
    after ten seconds, then after twice as long each time, then every minute.

    Args:
        total: how many there will be; None where nobody knows.
        label: what is done; stands before the figures.
        plain: whether lines come where there is no terminal.
        now: a clock, in seconds.
    """

    def __init__(
        self,
        total: int | None,
        label: str = "",
        plain: bool = False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total, self.label, self.note = total, label, ""
        self.done = 0
        self.skipped = 0  # of those that are done: by an earlier run, so in no time
        terminal = sys.stderr is not None and sys.stderr.isatty()
        self.shown = terminal and (total is None or total > FEW)
        self._named, self._plain = plain and not self.shown, plain and not terminal
        self._now, self._start = now, now()
        self._drawn = self._start - REDRAWN
        self._wait, self._next = FIRST, self._start + FIRST

    def clear(self) -> None:
        """Take the line away, before something else is printed."""
        if self.shown:
            _write(CLEAR_LINE)

    def __enter__(self) -> Progress:
        """Say what begins, where no line shows it."""
        if self._named:
            _write(f"{self.label}\n")
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def over(self, items: Iterable[T]) -> Iterator[T]:
        """The items, each counted when the next one is asked for, from the beginning to the end."""
        with self:
            for item in items:
                yield item
                self.step()

    def end(self) -> None:
        """Leave the line as it is and go to the next."""
        if self.shown:
            self.clear()
            _write(f"{self.line(self._now() - self._start)}\n")

    def skip(self, count: int) -> None:
        """So many were done before the start."""
        self.done += count
        self.skipped += count

    def step(self, count: int = 1, note: str = "") -> None:
        """So many more are done: draw the line again, with a note behind it."""
        self.done += count
        self.note = note or self.note
        now = self._now()
        if self.shown and (now >= self._drawn + REDRAWN or self.done == self.total):
            self._drawn = now
            _write(f"{CLEAR_LINE}{self.line(now - self._start)}")
        elif self._plain and now >= self._next:
            self._wait = min(2 * self._wait, MOST)
            self._next = now + self._wait
            _write(f"{self.line(now - self._start)}\n")

    def line(self, seconds: float) -> str:
        """The text after `seconds`."""
        rate = (self.done - self.skipped) / max(seconds, 1e-6)
        label = f"{self.label}: " if self.label else ""
        note = f"  {self.note}" if self.note else ""
        if self.total is None:
            return f"{label}{self.done}  {rate:.1f}/s{note}"
        left = round((self.total - self.done) / max(rate, 1e-6))
        hours, minutes = divmod(left // 60, 60)
        clock = f"{hours}:{minutes:02}" if hours else f"{minutes}"
        return f"{label}{self.done}/{self.total}  {rate:.1f}/s  {clock}:{left % 60:02} left{note}"


def _write(text: str) -> None:
    """To standard error; where that is closed or full, what is done matters more."""
    if sys.stderr is not None:
        with suppress(OSError):
            sys.stderr.write(text)
            sys.stderr.flush()


def progress(label: str, total: int | None = None) -> Progress:
    """Progress of a part that has a name. Its last state stays; elsewhere the name comes first."""
    return Progress(total, label, plain=True)


def tracked(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """The items, each counted when the next one is asked for."""
    return progress(label, total).over(items)
