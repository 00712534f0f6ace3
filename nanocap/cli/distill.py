"""`nanocap distill`: train a student from a recipe."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the run.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Folder that the recipe's shards are relative to, instead of the recipe's own root.",
)
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    help="Folder of prepared photos and maps, shared by runs.  [default: OUT/cache]",
)
@click.option("--prepare-only", is_flag=True, help="Stop once the photos are prepared.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "bf16", "fp32"]),
    default="auto",
    show_default=True,
    help="Arithmetic of training; auto takes bf16 where the processor has it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON line.")
def command(
    recipe: Path,
    out: Path,
    data: Path | None,
    cache: Path | None,
    prepare_only: bool,
    precision: str,
    as_json: bool,
) -> None:
    """Train a student as RECIPE says; the result is OUT/student.safetensors.

    Kill it at any moment and run the same command again: it goes on from its last checkpoint, with
    the losses of a run that was never interrupted. OUT/metrics.jsonl and OUT/curves.png show how it
    goes.

    \b
    Examples:
      nanocap distill distill/recipes/nano-s.toml --out runs/nano-s
      nanocap distill my.toml --out runs/mine --data /mnt/photos
      accelerate launch -m nanocap.cli distill my.toml --out runs/mine   # several devices
    """
    from accelerate import Accelerator

    from nanocap.distill.corpus import prepare
    from nanocap.distill.devices import mixed_precision
    from nanocap.distill.guides import Guides
    from nanocap.distill.recipe import load_recipe
    from nanocap.distill.start import Start
    from nanocap.distill.trainer import Run, train

    loaded = load_recipe(recipe)
    accelerator = Accelerator(mixed_precision=mixed_precision(precision))
    root = data if data is not None else recipe.parent / loaded.data.root
    cache = cache if cache is not None else out / "cache"
    start = Start(recipe.parent / loaded.start) if loaded.start else None
    guides = Guides([recipe.parent / path for path in loaded.teachers]) if loaded.teachers else None
    shared = loaded.data.tokenizer
    before = start or guides or (Start(recipe.parent / shared) if shared else None)
    with accelerator.main_process_first():
        corpus = prepare(loaded, root, cache, before.tokenizer if before is not None else "")
    run = Run(loaded, corpus, out, cache, start, guides, recipe.parent)
    result = corpus.folder if prepare_only else train(run, accelerator)
    if accelerator.is_main_process:
        click.echo(json.dumps({"result": str(result)}) if as_json else str(result))
