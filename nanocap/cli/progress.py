"""What a verb prints on standard error while it works."""

from __future__ import annotations

import time
from collections.abc import Callable

import click

from nanocap.progress import CLEAR_LINE, FEW, Progress

__all__ = ["CLEAR_LINE", "FEW", "Lines", "Progress", "timed_lines"]


def timed_lines() -> Callable[[str], None]:
    """Prints lines of progress on standard error, each with the seconds since this call."""
    start = time.monotonic()

    def report(line: str) -> None:
        click.echo(f"{time.monotonic() - start:6.1f} s  {line}", err=True)

    return report


class Lines:
    """Lines of progress, and below them a bar while a part of many steps goes on."""

    def __init__(self) -> None:
        self._print = timed_lines()
        self._bar = Progress(0)

    def line(self, text: str) -> None:
        """One more line."""
        self._bar.clear()
        self._bar = Progress(0)
        self._print(text)

    def count(self, done: int, total: int) -> None:
        """So many steps of the part are done."""
        if not self._bar.total or done <= self._bar.done:
            self._bar = Progress(total, plain=True)
        self._bar.total = total
        self._bar.step(done - self._bar.done)
        if done == total:
            self._bar.clear()
