"""What it is worth to leave out of captions what the student cannot see (KnowAda).

A student that has been trained says which words of people's captions it cannot see
(`nanocap label --adapt`). The same student is then trained anew, for the same steps with the same
seed, on three kinds of targets: `raw`, as people wrote them; `adapted`, less what it does not see;
`shortened`, the raw ones cut to as many words as the adapted ones have, so that shortness alone is
told apart from sight.

    python tests/benchmarks/adaptation.py student.safetensors --recipe distill/recipes/nano-s.toml \
      --data DATA --out runs/adaptation --val 'DATA/flickr8k-val-*.tar'

Only the sources of --sources take part. Each row is kept in --out: run the command again to go on
after a stop.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
from accelerate import Accelerator
from commands import scored

from nanocap.distill.chain import Chain
from nanocap.distill.data.sources import Example, read_source
from nanocap.distill.labelling.adaptation import STRANGERS, Eyes, drop_unseen
from nanocap.distill.labelling.decision import ORIGINAL, Candidate
from nanocap.distill.recipes.recipe import Recipe, load_recipe
from nanocap.distill.training.trainer import train
from nanocap.files.whole_file import whole_file
from nanocap.image.image import load_rgb
from nanocap.student.devices import mixed_precision

VARIANTS = ("raw", "shortened", "adapted")
SHOWN = (
    ("cider", "CIDEr"),
    ("bleu4", "BLEU-4"),
    ("objects_precision", "objects, precision"),
    ("objects_recall", "recall"),
    ("hallucination", "hallucinated"),
    ("words", "words"),
    ("distinct", "distinct"),
)


def targets(example: Example, eyes: Eyes) -> dict[str, list[str]]:
    """The captions of a photo, of each variant.

    One of which the student sees nothing goes; where it sees nothing of any, all stay as they are.
    """
    raw = list(example.captions)
    [gains] = eyes.gains([load_rgb(example.image)], [raw])
    found = [
        drop_unseen(Candidate(text, ORIGINAL), some) for text, some in zip(raw, gains, strict=True)
    ]
    pairs = [(t, one.text) for t, one in zip(raw, found, strict=True) if not one.dropped]
    pairs = pairs or [(text, text) for text in raw]
    return {
        "raw": raw,
        "adapted": [adapted for _, adapted in pairs],
        "shortened": [" ".join(text.split()[: len(a.split())]) for text, a in pairs],
    }


class Study:
    """The three trainings: the same photos, with three kinds of captions."""

    def __init__(self, options: argparse.Namespace):
        self.options, self.out = options, options.out
        self.recipe = load_recipe(options.recipe)
        self.root = options.data or options.recipe.parent / self.recipe.data.root
        self.out.mkdir(parents=True, exist_ok=True)
        self.accelerator = Accelerator(mixed_precision=mixed_precision("auto"))

    def prepare(self) -> None:
        """Write each source once, its rows with the captions of all variants."""
        for source in self.recipe.data.sources:
            path = self.out / f"{source.name}.tar"
            if source.name not in self.options.sources or path.exists():
                continue
            # by key, since a shard may hold a photo twice
            examples = list({one.key: one for one in read_source(source, self.root)}.values())
            others = examples[:: max(1, len(examples) // STRANGERS)][:STRANGERS]
            eyes = Eyes.beside(self.options.student, [load_rgb(one.image) for one in others])
            bar = click.progressbar(examples, label=f"adapting {source.name}", file=sys.stderr)
            with (
                whole_file(path) as partial,
                tarfile.open(partial, "w") as tar,
                bar as shown,
            ):
                for example in shown:
                    _add(tar, f"{example.key}.webp", example.image)
                    _add(tar, f"{example.key}.json", json.dumps(targets(example, eyes)).encode())

    def recipe_of(self, variant: str) -> Recipe:
        """The recipe with the captions of a variant, its first stage alone."""
        sources = tuple(
            replace(source, shards=f"{source.name}.tar", captions=variant, drop="")
            for source in self.recipe.data.sources
            if source.name in self.options.sources
        )
        stage = next(stage for stage in self.recipe.stages if stage.kind == "supervised")
        views = self.options.views or stage.views
        stage = replace(stage, steps=self.options.steps, views=views, evaluate=0)
        # one tokenizer for all rows: that of the student which says what it sees
        data = replace(
            self.recipe.data,
            sources=sources,
            text=(),
            tokenizer=str(self.options.student.resolve()),
        )
        return replace(
            self.recipe, data=data, stages=(stage,), monitor="", before=(), teachers=(), start=""
        )

    def figures(self, variant: str) -> dict[str, dict[str, float]]:
        """Train one row and measure it."""
        folder, cache = self.out / variant, self.out / "cache"
        chain = Chain(self.options.recipe, folder, cache, self.out)
        student = train(chain.run(self.recipe_of(variant), self.accelerator), self.accelerator)
        return scored(f"student:{student}", self.options.val, self.options.beams)

    def rows(self) -> Iterator[str]:
        """The table, in Markdown, as it comes about."""
        self.prepare()
        yield f"| targets | {' | '.join(title for _, title in SHOWN)} |"
        yield "|---" * (len(SHOWN) + 1) + "|"
        for variant in VARIANTS:
            kept = self.out / f"{variant}.json"
            if not kept.exists():
                figures = self.figures(variant)
                kept.write_text(json.dumps(figures), encoding="utf-8")
            found = json.loads(kept.read_text(encoding="utf-8"))
            cells = (f"{found[key]['value']:.1f}" for key, _ in SHOWN)
            yield f"| {variant} | {' | '.join(cells)} |"


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("student", type=Path, help="who says what it sees")
    parser.add_argument("--recipe", type=Path, required=True, help="how students are trained")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--val", required=True, help="shards to score on (a glob, quoted)")
    parser.add_argument("--data", type=Path, help="folder of the recipe's shards")
    parser.add_argument("--sources", nargs="+", default=["flickr8k", "coco-human"])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--views", type=int, help="of each photo, cached  [the recipe's]")
    parser.add_argument("--beams", type=int, default=3)
    for row in Study(parser.parse_args()).rows():
        print(row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
