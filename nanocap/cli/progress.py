"""A progress line on a terminal's standard error that gives way to other output."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import click

FEW = 4  # up to so many, the captions themselves are the progress
CLEAR_LINE = "\r\x1b[K"


class Progress:
    """`12/340  3.1/s  1:46 left`, redrawn in place.

    Shown only when standard error is a terminal and there are more than a few things to do.

    Args:
        total: how many there will be; None where nobody knows.
    """

    def __init__(self, total: int | None) -> None:
        self.total = total
        self.done = 0
        self.skipped = 0  # of those that are done: by an earlier run, so in no time
        self.shown = sys.stderr.isatty() and (total is None or total > FEW)
        self._start = time.monotonic()

    def clear(self) -> None:
        """Take the line away, before something else is printed."""
        if self.shown:
            sys.stderr.write(CLEAR_LINE)
            sys.stderr.flush()

    def skip(self, count: int) -> None:
        """So many were done before the start."""
        self.done += count
        self.skipped += count

    def step(self, count: int = 1) -> None:
        """So many more are done: draw the line again."""
        self.done += count
        if self.shown:
            sys.stderr.write(f"{CLEAR_LINE}{self.line(time.monotonic() - self._start)}")
            sys.stderr.flush()

    def line(self, seconds: float) -> str:
        """The text after `seconds`."""
        rate = (self.done - self.skipped) / max(seconds, 1e-6)
        if self.total is None:
            return f"{self.done}  {rate:.1f}/s"
        left = round((self.total - self.done) / max(rate, 1e-6))
        hours, minutes = divmod(left // 60, 60)
        clock = f"{hours}:{minutes:02}" if hours else f"{minutes}"
        return f"{self.done}/{self.total}  {rate:.1f}/s  {clock}:{left % 60:02} left"


def timed_lines() -> Callable[[str], None]:
    """Prints lines of progress on standard error, each with the seconds since this call."""
    start = time.monotonic()

    def report(line: str) -> None:
        click.echo(f"{time.monotonic() - start:6.1f} s  {line}", err=True)

    return report
