"""What each part of distillation is worth: the same student, the same steps, parts added.

A recipe with teachers is taken apart: `people` learns from people's captions alone; `labels` adds
the photos that teachers captioned; `distributions` adds what teachers say about every piece,
`looks` what they see. Each is trained for the same number of steps, with each seed. Captions are
scored in torch, by beam search.

    python tests/benchmarks/ablation.py RECIPE --out runs/ablation --val 'data/flickr8k-val-*.tar'

What comes before the recipe (its teachers, its labels) is made first, below --out. Each row is kept
as soon as it is measured: run the command again to go on after a stop.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import replace
from pathlib import Path

from accelerate import Accelerator
from commands import scored

from nanocap.distill.chain import Chain
from nanocap.distill.recipes.recipe import Recipe, Stage, load_recipe
from nanocap.distill.training.trainer import train
from nanocap.student.devices import mixed_precision

#: What each variant leaves of the recipe: whether labels, and which shares of the loss.
VARIANTS: dict[str, tuple[bool, tuple[str, ...]]] = {
    "people": (False, ()),
    "labels": (True, ()),
    "distributions": (False, ("distillation",)),
    "labels and distributions": (True, ("distillation",)),
    "all, and looks": (True, ("distillation", "imitation", "relation")),
}
BY_TEACHERS = ("labelled", "machine")  # what is in the names of sources with their captions
SHARES = ("distillation", "imitation", "relation")


def taken_apart(recipe: Recipe, variant: str, seed: int, steps: int) -> Recipe:
    """The recipe with the parts of a variant alone, as one supervised stage."""
    labels, kept = VARIANTS[variant]
    sources = tuple(
        source
        for source in recipe.data.sources
        if labels or not any(part in source.name for part in BY_TEACHERS)
    )
    stage: Stage = next(stage for stage in recipe.stages if stage.kind == "supervised")
    dropped = {name: 0.0 for name in SHARES if name not in kept}
    stage = replace(stage, steps=steps, evaluate=0, **dropped)
    return replace(
        recipe, seed=seed, data=replace(recipe.data, sources=sources), stages=(stage,), monitor=""
    )


class Study:
    """The recipe's chain, whose earlier runs serve all variants."""

    def __init__(self, options: argparse.Namespace):
        self.options, self.recipe = options, load_recipe(options.recipe)
        cache = options.cache or options.out / "cache"
        self.chain = Chain(options.recipe, options.out, cache, options.data)
        self.accelerator = Accelerator(mixed_precision=mixed_precision("auto"))

    def student(self, folder: Path, variant: str, seed: int) -> Path:
        """Train one row; returns the path of its student."""
        recipe = taken_apart(self.recipe, variant, seed, self.options.steps)
        # with all that comes before, also where nothing of it is used: one tokenizer for all rows
        run = replace(self.chain.run(recipe, self.accelerator), out=folder)
        return train(run, self.accelerator)


def table(out: Path, seeds: list[int]) -> str:
    """Markdown: each variant's CIDEr by seed, the mean, and the gain over people's captions."""
    lines = [
        f"| learns from | {' | '.join(f'seed {seed}' for seed in seeds)} | mean | gain | BLEU-4 |",
        "|---" * (len(seeds) + 4) + "|",
    ]
    means: dict[str, float] = {}
    for variant in VARIANTS:
        files = [out / f"{variant.replace(' ', '-')}-{seed}" / "figures.json" for seed in seeds]
        rows = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.exists()]
        if len(rows) < len(seeds):
            continue
        ciders = [row["cider"] for row in rows]
        means[variant] = statistics.mean(ciders)
        bleu = statistics.mean(row["bleu4"] for row in rows)
        gain = means[variant] - means.get("people", means[variant])
        cells = [variant, *(f"{one:.1f}" for one in ciders), f"{means[variant]:.1f}"]
        lines.append(f"| {' | '.join([*cells, f'{gain:+.1f}', f'{bleu:.1f}'])} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", type=Path, help="a recipe with `teachers`")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--val", required=True, help="shards to score on (a glob, quoted)")
    parser.add_argument("--data", type=Path, help="folder of the recipe's shards")
    parser.add_argument("--cache", type=Path, help="prepared photos and maps  [OUT/cache]")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--beams", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), default=list(VARIANTS))
    options = parser.parse_args()
    study = Study(options)
    for seed in options.seeds:
        for variant in options.only:
            folder = options.out / f"{variant.replace(' ', '-')}-{seed}"
            if (folder / "figures.json").exists():
                continue
            print(f"{variant}, seed {seed}", file=sys.stderr)
            student = study.student(folder, variant, seed)
            figures = scored(f"student:{student}", options.val, options.beams)
            found = {key: one["value"] for key, one in figures.items()}
            (folder / "figures.json").write_text(json.dumps(found), encoding="utf-8")
    print(table(options.out, options.seeds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
