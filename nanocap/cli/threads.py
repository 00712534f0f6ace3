"""The option --threads of every verb that computes."""

from __future__ import annotations

from typing import Any

import click

from nanocap.cli.output import tell
from nanocap.cores import available_cores


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
