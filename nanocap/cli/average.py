"""`nanocap average`: several students' weights as one student."""

from __future__ import annotations

import json
from pathlib import Path

import click

from nanocap.cli.options import PATH, json_option
from nanocap.cli.output import say
from nanocap.errors import OptionError


@click.command()
@click.argument("students", nargs=-1, required=True, type=PATH)
@click.option("--weights", help="One each, with commas between.  [default: all the same]")
@click.option("--out", required=True, type=PATH, help="File to write.")
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
@json_option
def command(
    students: tuple[Path, ...], weights: str | None, out: Path, overwrite: bool, as_json: bool
) -> None:
    """Average the weights of STUDENTS, finished students with one tokenizer.

    It helps where they began alike: runs of one seed that differ in length or dropout, or a
    student before and after its last stage. A recipe's `start` may name the result.

    \b
    Examples:
      nanocap average a/student.safetensors b/student.safetensors --out mean.safetensors
      nanocap average early.safetensors late.safetensors --weights 0.4,0.6 --out mean.safetensors
    """
    from nanocap.distill.training.weight_average import average

    if out.exists() and not overwrite:
        raise OptionError(f"{out}: already exists; choose another name or --overwrite")
    try:
        shares = [float(part) for part in weights.split(",")] if weights else [1.0] * len(students)
    except ValueError as error:
        message = f"--weights must be numbers with commas between, not {weights!r}"
        raise OptionError(message) from error
    student, metadata = average(students, shares)
    student.save(out, metadata)
    say(json.dumps({"student": str(out)}) if as_json else out)
