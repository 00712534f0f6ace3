"""The options that every verb which trains has in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from nanocap.cli.threads import threads_option

Command = Callable[..., Any]

OUT = "Folder of the run."
NAMED = (
    click.argument("recipe", type=click.Path(path_type=Path)),
    click.option("--out", required=True, type=click.Path(path_type=Path), help=OUT),
)
OPTIONS = (
    click.option(
        "--data",
        type=click.Path(path_type=Path),
        help="Folder that the recipe's shards are relative to, instead of the recipe's own root.",
    ),
    click.option(
        "--cache",
        type=click.Path(path_type=Path),
        help="Folder of prepared photos and feature maps, shared by runs.  [default: OUT/cache]",
    ),
    click.option(
        "--precision",
        type=click.Choice(["auto", "bf16", "fp32"]),
        default="auto",
        show_default=True,
        help="Training precision; auto takes bf16 where the processor has it.",
    ),
    threads_option,
    click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON line."),
)


def training_options(command: Command) -> Command:
    """RECIPE and --out, and the options."""
    return _with((*NAMED, *OPTIONS), command)


def other_options(command: Command) -> Command:
    """--data, --cache, --precision, --threads and --json."""
    return _with(OPTIONS, command)


def _with(options: Sequence[Command], command: Command) -> Command:
    for option in reversed(options):
        command = option(command)
    return command
