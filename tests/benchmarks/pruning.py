"""What pruning costs: step by step (UPop) against one shot by magnitude, at equal size.

Each budget is a share of the parameters of attentions and MLPs. Both ways go on from the same
student for the same number of steps over the same photos in the same order: UPop prunes in the
first half of them and trains what is left in the second, the other prunes at once and trains what
is left in all of them. Between them stands the whole student, trained for as long, and for each
budget what the one shot says before it is trained. Loss and CIDEr are those of the photos that the
recipe sets aside (its `monitor`), greedy; with --val CIDEr of other photos too, in fp32.

    python tests/benchmarks/pruning.py student.safetensors --recipe distill/recipes/nano-s.toml \
      --data DATA --out runs/pruning --keep 0.8 0.6 0.4 --val 'DATA/flickr8k-val-*.tar'

Each row is kept in --out: run the command again to go on after a stop.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from accelerate import Accelerator
from commands import scored

from nanocap.distill.data.corpus import prepare
from nanocap.distill.pruning.magnitude import prune_file
from nanocap.distill.recipes.recipe import Recipe, Stage, load_recipe
from nanocap.distill.training.monitor import Monitor
from nanocap.distill.training.run import Run, Start
from nanocap.distill.training.trainer import train
from nanocap.student import Student
from nanocap.student.devices import mixed_precision
from nanocap.student.student import count_parameters

WHOLE, SHOT, UNTRAINED, UPOP = "whole", "one shot", "one shot, untrained", "UPop"


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    how: str
    keep: float = 1.0

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.how.replace(', ', '-').replace(' ', '-')}-{self.keep:g}"


class Study:
    """The rows over one student, one corpus and one cache of maps."""

    def __init__(self, options: argparse.Namespace):
        self.options, self.out = options, options.out
        self.start = Start(options.student)
        dimensions = Student.load(options.student)[0].dimensions
        recipe = load_recipe(options.recipe)
        own = {k: v for k, v in dimensions.to_dict().items() if k != "vocabulary"}
        data = replace(recipe.data, vocabulary=dimensions.vocabulary, tokenizer="")
        self.recipe: Recipe = replace(
            recipe, data=data, student=own, teachers=(), imagenet="", start=str(options.student)
        )
        root = options.data or options.recipe.parent / recipe.data.root
        self.cache = options.cache or self.out / "cache"
        self.corpus = prepare(self.recipe, root, self.cache, self.start.tokenizer)
        self.accelerator = Accelerator(mixed_precision=mixed_precision(options.precision))

    def student(self, row: Row) -> Path:
        """The student of a row."""
        folder, steps = self.out / row.name, self.options.steps
        if row.how == UPOP:
            half = steps // 2
            stages = [self._stage("prune", half, row.keep), self._stage("recover", steps - half)]
            return self._train(folder, stages, self.start)
        pruned = folder / "pruned.safetensors"
        if row.how != WHOLE and not pruned.exists():
            folder.mkdir(parents=True, exist_ok=True)
            student, metadata, _ = prune_file(self.options.student, row.keep)
            student.save(pruned, metadata)
        if row.how == UNTRAINED:
            return pruned
        start = self.start if row.how == WHOLE else Start(pruned)
        return self._train(folder, [self._stage("recover", steps)], start)

    def figures(self, path: Path) -> dict[str, float]:
        """Parameters, megabytes, and what the student says about the photos set aside."""
        student, _ = Student.load(path)
        found = Monitor(self.corpus, self.recipe.monitored, student.dimensions).look(
            student.state_dict()
        )
        size = {"parameters": count_parameters(student) / 1e6, "MB": path.stat().st_size / 1e6}
        return {**size, **found}

    def val(self, path: Path) -> float:
        """CIDEr on --val, greedy."""
        return scored(f"student:{path}", self.options.val, beams=1)["cider"]["value"]

    def _stage(self, name: str, steps: int, keep: float = 1.0) -> Stage:
        options = self.options
        return Stage(
            name=name,
            kind="supervised",
            steps=steps,
            batch=options.batch,
            lr=options.lr,
            trunk_lr=options.lr / 5,
            warmup=min(50, steps // 10),
            views=options.views,
            ema=0.99,
            keep=keep,
            evaluate=0,
        )

    def _train(self, out: Path, stages: Sequence[Stage], start: Start) -> Path:
        recipe = replace(self.recipe, stages=tuple(stages))
        return train(Run(recipe, self.corpus, out, self.cache, start), self.accelerator)


def rows(budgets: Sequence[float]) -> Iterator[Row]:
    """In the order of the table."""
    yield Row(WHOLE)
    for keep in budgets:
        yield from (Row(how, keep) for how in (UNTRAINED, SHOT, UPOP))


def measure(study: Study, row: Row) -> dict[str, float]:
    """The figures of a row, made once."""
    kept = study.out / row.name / "figures.json"
    if not kept.exists():
        print(row.name, file=sys.stderr)
        path = study.student(row)
        figures = study.figures(path)
        if study.options.val:
            figures["cider_val"] = study.val(path)
        kept.write_text(json.dumps(figures), encoding="utf-8")
    found: dict[str, float] = json.loads(kept.read_text(encoding="utf-8"))
    return found


def table(measured: Sequence[tuple[Row, dict[str, float]]]) -> str:
    """Markdown."""
    columns = {
        "parameters": "parameters, million",
        "MB": "MB in fp32",
        "aside_loss": "loss aside",
        "cider": "CIDEr aside",
        "cider_val": "CIDEr val",
    }
    shown = [key for key in columns if all(key in figures for _, figures in measured)]
    head = ["keep", "how", *(columns[key] for key in shown)]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row, figures in measured:
        cells = [f"{row.keep:g}", row.how, *(f"{figures[key]:.2f}" for key in shown)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("student", type=Path, help="a finished student")
    parser.add_argument("--recipe", type=Path, required=True, help="whose photos to train on")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--data", type=Path, help="folder of the recipe's shards")
    parser.add_argument("--cache", type=Path, help="prepared photos and maps  [OUT/cache]")
    parser.add_argument("--keep", type=float, nargs="+", default=[0.8, 0.6, 0.4])
    parser.add_argument("--steps", type=int, default=1000, help="of training, each row")
    parser.add_argument("--batch", type=int, default=32, help="photos a step")
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--views", type=int, default=2)
    parser.add_argument("--precision", choices=["auto", "bf16", "fp32"], default="auto")
    parser.add_argument("--val", help="shards to score on as well (a glob, quoted)")
    options = parser.parse_args()
    study = Study(options)
    measured = []
    for row in rows(options.keep):
        measured.append((row, measure(study, row)))
        (options.out / "table.md").write_text(table(measured) + "\n", encoding="utf-8")
    print(table(measured))
    return 0


if __name__ == "__main__":
    sys.exit(main())
