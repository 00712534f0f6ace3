"""What verbs print: file names and captions may hold anything, and a terminal obeys some of it."""

from __future__ import annotations

from contextlib import suppress

import click

from nanocap.errors import one_line


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
