"""`nanocap eval`: score a bundle on photos with reference captions."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import click

from nanocap.cli.progress import Progress
from nanocap.distill.recipe import Source, load_recipe
from nanocap.distill.sources import TABLE_FORMATS, Example, read_source, set_aside
from nanocap.errors import DataError, ImageError
from nanocap.metrics.reference import score
from nanocap.runtime.captioner import Captioner


@click.command()
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@click.option("--data", help="WebDataset shards (a glob, quoted), or a .jsonl or .parquet table.")
@click.option("--recipe", type=click.Path(path_type=Path), help="A recipe: with --source.")
@click.option("--source", "name", help="Score the photos that the recipe set aside of this source.")
@click.option("--data-root", type=click.Path(path_type=Path), help="Instead of the recipe's root.")
@click.option("--artifact", help="Artifact of the bundle.  [default: its first]")
@click.option("--beams", type=click.IntRange(1, 64), help="[default: the bundle's]")
@click.option(
    "--length", type=click.Choice(["any", "short", "long"]), help="[default: the bundle's]"
)
@click.option("--batch-size", type=click.IntRange(1, 1024), default=16, show_default=True)
@click.option("--threads", type=click.IntRange(1), help="[default: cores]")
@click.option(
    "--captions", type=click.Path(path_type=Path), help="Write the captions here as well."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line.")
@click.pass_context
def command(
    ctx: click.Context,
    bundle: Path | None,
    data: str | None,
    recipe: Path | None,
    name: str | None,
    data_root: Path | None,
    artifact: str | None,
    beams: int | None,
    length: str | None,
    batch_size: int,
    threads: int | None,
    captions: Path | None,
    as_json: bool,
) -> None:
    """Score BUNDLE (default: the model inside the package) on photos with reference captions.

    CIDEr, BLEU and ROUGE-L come from pycocoevalcap with its PTB tokenizer, which needs Java.

    \b
    Examples:
      nanocap eval --data 'flickr8k-val-*.tar'
      nanocap eval my-bundle --artifact onnx-fp32 --data photos/captions.jsonl
      nanocap eval --recipe distill/recipes/nano-s.toml --source coco-human
    """
    examples = list(_examples(data, recipe, name, data_root))
    keys = [example.key for example in examples]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise DataError(f"{twice}: two photos have this key")
    captioner = Captioner(bundle, artifact=artifact, threads=threads)
    outcomes = captioner.attempt(
        (example.image for example in examples), batch_size=batch_size, beams=beams, length=length
    )
    progress, found = Progress(len(examples)), {}
    for example, outcome in zip(examples, outcomes, strict=True):
        if isinstance(outcome, ImageError):
            progress.clear()
            click.echo(f"nanocap: {example.key}: left out: {outcome}", err=True)
        else:
            found[example.key] = outcome.text
        progress.step()
    progress.clear()
    references = {e.key: e.captions for e in examples if e.key in found}
    if captions is not None:
        lines = (json.dumps({"image": key, "caption": text}) for key, text in found.items())
        captions.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    scores = score(found, references)
    unreadable = len(examples) - len(found)
    if as_json:
        values = {k: round(v, 3) for k, v in dataclasses.asdict(scores).items()}
        click.echo(json.dumps({**values, "unreadable": unreadable}))
    else:
        click.echo(f"CIDEr    {scores.cider:7.2f}\nBLEU-4   {scores.bleu4:7.2f}")
        click.echo(f"BLEU-1   {scores.bleu1:7.2f}\nROUGE-L  {scores.rouge_l:7.2f}")
        click.echo(f"distinct {scores.distinct:4d} of {scores.photos} photos")
    ctx.exit(1 if unreadable else 0)


def _examples(
    data: str | None, recipe: Path | None, name: str | None, data_root: Path | None
) -> Iterator[Example]:
    if data is not None and recipe is None and name is None:
        is_table = Path(data).suffix.lower() in TABLE_FORMATS
        source = Source("--data", table=data) if is_table else Source("--data", shards=data)
        yield from read_source(source, Path())
    elif recipe is not None and name is not None and data is None:
        loaded = load_recipe(recipe)
        root = data_root if data_root is not None else recipe.parent / loaded.data.root
        for source in loaded.data.sources:
            if source.name == name:
                found = list(read_source(source, root))
                aside = set_aside([example.key for example in found], source.aside)
                yield from (example for example in found if example.key in aside)
                return
        raise click.UsageError(f"the recipe has no source {name!r}")
    else:
        raise click.UsageError("give --data, or --recipe together with --source")
