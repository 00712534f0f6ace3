"""What evidence, texts and rewards are worth: the same student, the same steps, parts added.

A recipe with a concept head is taken apart. `photos` learns from photos alone, `evidence` is told
what the concept head finds besides, `texts` learns from captions without photos as well; these
three are the supervised stages alone, of the same number of steps. `rewards` is the whole recipe.
Captions are scored in torch, by beam search, on what the recipe sets aside of each source.

    python tests/benchmarks/evidence.py distill/recipes/default.toml --data DATA \
      --out runs/parts

Each row is kept as soon as it is measured: run the command again to go on after a stop.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from accelerate import Accelerator
from commands import command

from nanocap.distill.chain import Chain
from nanocap.distill.recipes.recipe import Recipe, Stage, load_recipe
from nanocap.distill.training.trainer import train
from nanocap.student.devices import mixed_precision

FIGURES = ("cider", "hallucination", "worn")


def _supervised(recipe: Recipe, steps: int, **changes: object) -> Recipe:
    """The recipe up to its supervised stage, whose settings change."""
    last = next(i for i, stage in enumerate(recipe.stages) if stage.kind == "supervised")

    def changed(stage: Stage) -> Stage:
        if stage.kind != "supervised":
            return stage
        return replace(stage, steps=steps, evaluate=0, **changes)  # type: ignore[arg-type]

    return replace(recipe, stages=tuple(map(changed, recipe.stages[: last + 1])), monitor="")


def photos(recipe: Recipe, steps: int) -> Recipe:
    """Without a concept head, and so without its stage."""
    recipe = _supervised(recipe, steps, naming=0.0, texts=0, renamed=0, swapped=0.0)
    stages = tuple(stage for stage in recipe.stages if stage.kind == "supervised")
    return replace(recipe, stages=stages, data=replace(recipe.data, concepts=0))


def evidence(recipe: Recipe, steps: int) -> Recipe:
    """With a concept head, and captions of photos alone."""
    return _supervised(recipe, steps, texts=0, renamed=0, swapped=0.0)


def texts(recipe: Recipe, steps: int) -> Recipe:
    """With captions that have no photo."""
    return _supervised(recipe, steps)


def rewards(recipe: Recipe, steps: int) -> Recipe:
    """With self-critical training, all as the recipe has it."""
    return replace(recipe, monitor="")


PARTS: dict[str, Callable[[Recipe, int], Recipe]] = {
    part.__name__: part for part in (photos, evidence, texts, rewards)
}


def figures(student: Path, options: argparse.Namespace, source: str) -> dict[str, float]:
    """Of the photos that the recipe sets aside of a source."""
    asked = ["--recipe", str(options.recipe), "--source", source, "--beams", str(options.beams)]
    asked += ["--data-root", str(options.data)] if options.data else []
    skipped = [word for name in ("meteor", "spice", "rouge") for word in ("--skip", name)]
    found = json.loads(command(["eval", f"student:{student}", *asked, "--json", *skipped]))
    return {key: found["figures"][key]["value"] for key in FIGURES}


def table(out: Path, sources: list[str]) -> str:
    """Markdown: CIDEr, hallucinated objects in percent and worn phrases in points by source."""
    head = " | ".join(f"{name}: CIDEr | halluc. | worn" for name in sources)
    lines = [f"| learns from | {head} |", "|---" * (1 + len(FIGURES) * len(sources)) + "|"]
    for part in PARTS:
        file = out / part / "figures.json"
        if file.exists():
            rows = json.loads(file.read_text(encoding="utf-8"))
            cells = [f"{rows[name][key]:.1f}" for name in sources for key in FIGURES]
            lines.append(f"| {' | '.join([part, *cells])} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", type=Path, help="a recipe with `data.concepts`")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--data", type=Path, help="folder of the recipe's shards")
    parser.add_argument("--cache", type=Path, help="prepared photos and maps  [OUT/cache]")
    parser.add_argument("--steps", type=int, default=500, help="of the supervised stage")
    parser.add_argument("--beams", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=list(PARTS), default=list(PARTS))
    options = parser.parse_args()
    recipe = load_recipe(options.recipe)
    sources = [source.name for source in recipe.data.sources if source.aside]
    cache = options.cache or options.out / "cache"
    chain = Chain(options.recipe, options.out, cache, options.data)
    accelerator = Accelerator(mixed_precision=mixed_precision("auto"))
    for part in options.only:
        folder = options.out / part
        if (folder / "figures.json").exists():
            continue
        print(part, file=sys.stderr)
        run = replace(chain.run(PARTS[part](recipe, options.steps), accelerator), out=folder)
        student = train(run, accelerator)
        rows = {name: figures(student, options, name) for name in sources}
        (folder / "figures.json").write_text(json.dumps(rows), encoding="utf-8")
    print(table(options.out, sources))
    return 0


if __name__ == "__main__":
    sys.exit(main())
