"""Options that several verbs have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from nanocap.cli.output import tell
from nanocap.cores import available_cores

Command = Callable[..., Any]

PATH = click.Path(path_type=Path)
OUT = "Folder of the run."


class Threads(click.IntRange):
    """A number of threads from 1 on. More than there are cores are lowered to that, with a line.

    Threads beyond the cores wait for each other: hundreds of them take a minute for a caption.
    """

    def __init__(self) -> None:
        super().__init__(1)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        asked, cores = int(super().convert(value, param, ctx)), available_cores()
        if asked > cores:
            name = param.opts[0] if param is not None else "threads"
            tell(f"{name} {asked}: taking {cores}, one a core")
        return min(asked, cores)


threads_option = click.option("--threads", type=Threads(), help="[default: cores]")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON line.")
TRAINING = (
    click.option(
        "--data",
        type=PATH,
        help="Folder that the recipe's shards are relative to, instead of the recipe's own root.",
    ),
    click.option(
        "--cache",
        type=PATH,
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
    json_option,
)


def training_options(command: Command) -> Command:
    """--data, --cache, --precision, --threads and --json."""
    for option in reversed(TRAINING):
        command = option(command)
    return command


def page_option(shown: str) -> Command:
    """--report, of a page that shows so much."""
    page = click.Path(file_okay=False, path_type=Path)
    return click.option("--report", "page", type=page, help=f"Write {shown} here, as index.html.")
