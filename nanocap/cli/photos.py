"""The photos with captions that a verb measures on: a recipe's set aside, or other data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from nanocap.cli.output import tell

if TYPE_CHECKING:
    from nanocap.distill.data.sources import Example
    from nanocap.distill.recipes.recipe import Source


class Troubles:
    """What is left out, one line each."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, key: str, reason: str) -> None:
        self.count += 1
        tell(f"{key}: left out: {reason}")


def asked_source(
    data: str | None, recipe: Path | None, name: str | None, data_root: Path | None
) -> tuple[Source, Path]:
    """The source that is asked for, and the folder that it is relative to."""
    from nanocap.distill.data.sources import source_of
    from nanocap.distill.recipes.recipe import load_recipe

    if data is not None and recipe is None and name is None:
        return source_of(data), Path()
    if recipe is None or name is None or data is not None:
        raise click.UsageError("give --data, or --recipe together with --source")
    loaded = load_recipe(recipe)
    root = data_root if data_root is not None else recipe.parent / loaded.data.root
    for source in loaded.data.sources:
        if source.name == name:
            return source, root
    raise click.UsageError(f"the recipe has no source {name!r}")


def read_examples(source: Source, root: Path, aside: bool, troubles: Troubles) -> list[Example]:
    """All photos of a source, or those that a recipe sets aside of it."""
    from nanocap.distill.data.sources import read_source, set_aside

    if not aside:
        return list(read_source(source, root, troubles.add))
    found = list(read_source(source, root))
    kept = set_aside([example.key for example in found], source.aside)
    return [example for example in found if example.key in kept]
