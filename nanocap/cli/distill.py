"""`nanocap distill`: train a student from a recipe."""

from __future__ import annotations

import json
from pathlib import Path

import click

from nanocap.cli.training import training_options


@click.command()
@training_options
@click.option("--prepare-only", is_flag=True, help="Stop once the photos are prepared.")
def command(
    recipe: Path,
    out: Path,
    data: Path | None,
    cache: Path | None,
    prepare_only: bool,
    precision: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Train a student as RECIPE says; the result is OUT/student.safetensors.

    What a recipe needs first (other runs, labels by their students: its [[before]]) is made first,
    below OUT/before.

    Kill it at any moment and run the same command again: it goes on from its last checkpoint, with
    the losses of a run that was never interrupted. OUT/metrics.jsonl and OUT/curves.png show how it
    goes.

    \b
    Examples:
      nanocap distill distill/recipes/nano-s.toml --out runs/nano-s
      nanocap distill distill/recipes/default.toml --out runs/default   # and all before it
      nanocap distill my.toml --out runs/mine --data /mnt/photos
      accelerate launch -m nanocap distill my.toml --out runs/mine   # several devices
    """
    from nanocap.distill.chain import Chain
    from nanocap.distill.devices import accelerator_of, keep_freed_memory, use_threads

    keep_freed_memory()
    use_threads(threads)
    accelerator = accelerator_of(precision)
    chain = Chain(recipe, out, cache if cache is not None else out / "cache", data)
    if prepare_only:
        result = chain.run(chain.load(), accelerator).corpus.folder
    else:
        result = chain.make(accelerator)
    if accelerator.is_main_process:
        click.echo(json.dumps({"result": str(result)}) if as_json else str(result))
