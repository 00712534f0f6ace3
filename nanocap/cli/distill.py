"""`nanocap distill`: train a student from a recipe."""

from __future__ import annotations

import json
from pathlib import Path

import click

from nanocap.cli.options import OUT, PATH, training_options
from nanocap.cli.output import say, tell

DRAFT = Path("my.toml")


@click.command()
@click.argument("recipe", required=False, type=PATH)
@click.option("--out", type=PATH, help=f"{OUT}  [required]")
@click.option(
    "--init",
    "folder",
    metavar="FOLDER",
    type=PATH,
    help=f"Write a recipe for a folder of photos with captions, to RECIPE or {DRAFT}, and stop.",
)
@training_options
@click.option("--prepare-only", is_flag=True, help="Stop once the photos are prepared.")
def command(
    recipe: Path | None,
    out: Path | None,
    folder: Path | None,
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

    --init FOLDER writes a recipe to begin with, sized by the photos in it. It takes captions from
    captions.jsonl or metadata.jsonl ("image" or "file_name", and "caption", a line), from a .txt
    beside each photo, or from the labels of `nanocap label`. RECIPE explains its keys.

    \b
    Examples:
      nanocap distill --init holiday && nanocap distill my.toml --out runs/my
      nanocap distill distill/recipes/nano-s.toml --out runs/nano-s
      nanocap distill distill/recipes/default.toml --out runs/default   # and all before it
      nanocap distill my.toml --out runs/mine --data /mnt/photos
      accelerate launch -m nanocap distill my.toml --out runs/mine   # several devices
    """
    if folder is not None:
        _draft(folder, recipe or DRAFT, as_json)
        return
    if recipe is None or out is None:
        raise click.UsageError(
            "Missing option '--out'." if recipe else "Missing argument 'RECIPE'; --init makes one."
        )
    from nanocap.distill.chain import Chain
    from nanocap.student.devices import accelerator_of, keep_freed_memory, use_threads

    keep_freed_memory()
    use_threads(threads)
    accelerator = accelerator_of(precision)
    chain = Chain(recipe, out, cache if cache is not None else out / "cache", data)
    if prepare_only:
        result = chain.run(chain.load(), accelerator).corpus.folder
    else:
        result = chain.make(accelerator)
    if accelerator.is_main_process:
        say(json.dumps({"result": str(result)}) if as_json else result)


def _draft(folder: Path, recipe: Path, as_json: bool) -> None:
    from nanocap.distill.draft import draft_recipe

    draft = draft_recipe(folder, recipe)
    for key, reason in draft.left_out.items():
        tell(f"{key}: left out: {reason}")
    if as_json:
        counts = {"photos": draft.photos, "captions": draft.captions}
        click.echo(json.dumps({"result": str(recipe), **counts, "next": draft.command}))
        return
    say(f"{recipe}: {draft.photos} photos with {draft.captions} captions in {draft.found}")
    say(f"next: {draft.command}")
    say(f"then: nanocap convert {draft.out}/student.safetensors --out BUNDLE --photos {folder}")
