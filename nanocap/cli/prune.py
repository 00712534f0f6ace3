"""`nanocap prune`: a smaller student, by the size of its weights."""

from __future__ import annotations

import json
from pathlib import Path

import click

from nanocap.cli.options import PATH, json_option
from nanocap.cli.output import say
from nanocap.errors import OptionError


@click.command()
@click.argument("checkpoint", type=PATH)
@click.option(
    "--keep",
    type=float,
    required=True,
    help="Share of the attentions' and MLPs' parameters that stays, above 0 and at most 1.",
)
@click.option("--out", required=True, type=PATH, help="File to write.")
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
@json_option
def command(checkpoint: Path, keep: float, out: Path, overwrite: bool, as_json: bool) -> None:
    """Take the smallest channels out of the attentions and MLPs of CHECKPOINT, a finished student.

    One budget over encoder, cross-attention and decoder; the convolutional trunk and the
    vocabulary stay whole. The result is a finished student: convert it, or name it as a recipe's
    `start` and train what is left. A pruned student may be pruned again: the share is then of what
    it has.

    \b
    Examples:
      nanocap prune student.safetensors --keep 0.6 --out small.safetensors
      nanocap convert small.safetensors --out small --photos photos/

    \b
    Better, and slower: a stage of a recipe that prunes while it trains (UPop), and one that trains
    what is left; nanocap distill does them.
      start = "student.safetensors"
      [[stages]]
      name = "prune"
      kind = "supervised"
      steps = 2000
      keep = 0.6
      [[stages]]
      name = "recover"
      kind = "supervised"
      steps = 1000
    """
    from nanocap.distill.pruning.magnitude import prune_file
    from nanocap.student.student import count_parameters

    if out.exists() and not overwrite:
        raise OptionError(f"{out}: already exists; choose another name or --overwrite")
    student, metadata, before = prune_file(checkpoint, keep)
    student.save(out, metadata)
    after = count_parameters(student)
    click.echo(f"{after:,} of {before:,} parameters", err=True)
    answer = {"student": str(out), "parameters": after, "parameters_before": before}
    say(json.dumps(answer) if as_json else out)
