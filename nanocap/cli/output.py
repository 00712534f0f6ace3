"""What verbs print: results on standard output, messages and progress on standard error.

File names and captions may hold anything, and a terminal obeys some of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import click

from nanocap.errors import one_line
from nanocap.progress import Progress


def say(line: object) -> None:
    """One line on standard output, with control characters as escapes."""
    click.echo(one_line(line))


def say_table(text: str) -> None:
    """Several lines on standard output, each as `say` has it."""
    for line in text.split("\n"):
        say(line)


def tell(line: object) -> None:
    """One line on standard error after the program's name; it is lost where nobody can read it."""
    with suppress(OSError):
        click.echo(f"nanocap: {one_line(line)}", err=True)


def timed_lines() -> Callable[[str], None]:
    """Prints lines of progress on standard error, each with the seconds since this call."""
    start = time.monotonic()
    return lambda line: click.echo(f"{time.monotonic() - start:6.1f} s  {line}", err=True)


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
