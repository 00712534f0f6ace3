"""`nanocap pack`: a recipe and its data in one small folder, to train on another machine."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from nanocap.cli.options import PATH, json_option
from nanocap.cli.output import say


@click.command()
@click.argument("recipe", type=PATH)
@click.option("--out", required=True, type=PATH, help="Folder to write.")
@click.option(
    "--megabytes",
    type=click.FloatRange(1),
    default=60,
    show_default=True,
    help="That all of it may take; photos are shrunk to fit.",
)
@click.option("--data", type=PATH, help="Folder of the recipe's shards.  [default: the recipe's]")
@click.option("--start", type=PATH, help="The student that the recipe starts from.")
@click.option(
    "--end-to-end",
    is_flag=True,
    help="Train the whole trunk, on photos that are augmented anew in every step: for a GPU.",
)
@json_option
def command(
    recipe: Path,
    out: Path,
    megabytes: float,
    data: Path | None,
    start: Path | None,
    end_to_end: bool,
    as_json: bool,
) -> None:
    """Pack RECIPE and all that it trains with, for a machine that has a GPU but no network.

    The folder holds the photos, made smaller; captions, texts and weights; the recipe; and run.sh,
    which trains and leaves the student in parts of 15 MB. A CPU runs it as well, only slower.

    \b
    Examples:
      nanocap pack my.toml --out packed --end-to-end
      nanocap pack distill/recipes/default.toml --out packed --start runs/before/student.safetensors
      OUT=results packed/run.sh && cat results/student.part-* > student.safetensors
    """
    from nanocap.distill.pack import pack

    packed = pack(recipe, out, megabytes, data, start, end_to_end)
    if as_json:
        say(json.dumps({"folder": str(out), **asdict(packed)}))
    else:
        shown = f"{packed.photos} photos of {packed.side} pixels, {packed.bytes / 1e6:.1f} MB"
        say(f"{out}: {shown}; {out}/run.sh trains it")
