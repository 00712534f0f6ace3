"""`nanocap label`: let a teacher caption photos, for a student to learn from."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click


@click.command()
@click.option(
    "--teacher",
    required=True,
    help="student:CHECKPOINT, or ensemble:CHECKPOINT,CHECKPOINT,... to average several.",
)
@click.option(
    "--images", required=True, multiple=True, help="WebDataset shards (a glob, quoted); repeatable."
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the labels.")
@click.option("--captions", type=click.IntRange(1, 16), default=5, show_default=True)
@click.option("--batch-size", type=click.IntRange(1, 1024), default=64, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON line.")
@click.pass_context
def command(
    ctx: click.Context,
    teacher: str,
    images: tuple[str, ...],
    out: Path,
    captions: int,
    batch_size: int,
    as_json: bool,
) -> None:
    """Caption photos with a teacher and write them as WebDataset shards that a recipe can name.

    Captions that the photos come with are not looked at. Kill it at any moment and run the same
    command again: it goes on after the last whole shard.

    \b
    Example:
      nanocap label --teacher ensemble:runs/a/student.safetensors,runs/b/student.safetensors \\
        --images 'photos/unlabelled-*.tar' --out labels
    """
    from nanocap.distill.labels import label
    from nanocap.distill.sources import read_photos
    from nanocap.distill.teachers import load_teacher

    loaded = load_teacher(teacher)
    photos = [photo for pattern in images for photo in read_photos(pattern)]
    with click.progressbar(length=len(photos), label="labelling", file=sys.stderr) as bar:
        unreadable = label(loaded, photos, out, captions, batch_size, step=bar.update)
    for key in unreadable:
        click.echo(f"nanocap: {key}: left out: not a photo that can be read", err=True)
    done = len(photos) - len(unreadable)
    if as_json:
        click.echo(json.dumps({"out": str(out), "photos": done, "unreadable": len(unreadable)}))
    else:
        click.echo(f"{out}: {done} photos labelled")
    ctx.exit(1 if unreadable else 0)
