"""What visual tokens are worth: six reducers at 196, 98, 49 and 25 tokens, trained and bolted on.

One student without reduction is trained first. Each way of reducing then goes on from it for the
same number of steps ("trained"), or is put into it as it is ("bolted on"); the unreduced student
goes on as well, so that all have seen the same photos equally often. A seed decides which photos,
captions and views come in which order while it goes on; the first student is that of the first
seed. All have three encoder blocks, since merging at most halves the tokens of a block. Captions
are greedy, scored against the references; the encoders run in ONNX Runtime fp32 at one thread, in
turns, and with --executorch in that as well.

    python tests/benchmarks/reduction.py --out runs/reduction --val 'data/flickr8k-val-*.tar'

Each row is kept in --out as soon as it is measured: run the command again to go on after a stop.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from commands import command, scored

from nanocap.bundle import Bundle
from nanocap.distill.data.corpus import Corpus, prepare
from nanocap.distill.recipes.recipe import Recipe, Stage, load_recipe
from nanocap.distill.training.run import Run, Start
from nanocap.distill.training.trainer import train
from nanocap.runtime.engines import load_engine
from nanocap.student import Student
from nanocap.student.devices import mixed_precision
from nanocap.student.reducers import REDUCERS

RECIPE = Path(__file__).parents[2] / "distill" / "recipes" / "nano-s.toml"
#: Tokens that leave each of the three encoder blocks, by the tokens that are left at the end.
BUDGETS = {196: (196, 196, 196), 98: (98, 98, 98), 49: (98, 49, 49), 25: (98, 49, 25)}
TRAINED, BOLTED = "trained", "bolted on"
ROUNDS = 40


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    reducer: str
    tokens: int
    how: str
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.reducer}-{self.tokens}-{self.how.replace(' ', '-')}-{self.seed}"


class Study:
    """The runs of one seed, over one corpus and one cache of maps."""

    def __init__(self, options: argparse.Namespace, recipe: Recipe, seed: int):
        self.options, self.out, self.seed = options, options.out, seed
        student = {**recipe.student, "encoder_blocks": 3, "reducer": "none", "keep": [196] * 3}
        self.recipe = replace(recipe, seed=seed, student=student)
        root = options.data if options.data is not None else RECIPE.parent / recipe.data.root
        self.corpus: Corpus = prepare(self.recipe, root, options.cache or self.out / "cache")
        self.accelerator = Accelerator(mixed_precision=mixed_precision("auto"))

    def base(self) -> Path:
        """The student without reduction that all rows go on from."""
        first = self.options.seeds[0]
        path: Path = self.out / f"base-{first}" / "student.safetensors"
        if path.exists():
            return path
        recipe = replace(self.recipe, seed=first)
        return self._train(recipe, path.parent, self.options.base_steps)

    def checkpoint(self, row: Row) -> Path:
        """The student of a row."""
        keep = list(BUDGETS[row.tokens])
        student = {**self.recipe.student, "reducer": row.reducer, "keep": keep}
        recipe = replace(self.recipe, student=student)
        start = Start(self.base())
        if row.how == TRAINED:
            return self._train(recipe, self.out / row.name, self.options.steps, start)
        path: Path = self.out / row.name / "student.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        _, metadata = Student.load(start.path)
        theirs = {k: metadata[k] for k in ("tokenizer", "controls", "training")}
        start.student(recipe.dimensions()).save(path, theirs)
        return path

    def _train(self, recipe: Recipe, out: Path, steps: int, start: Start | None = None) -> Path:
        rate = 1.0 if start is None else 0.3
        stage = Stage(
            name="maps",
            kind="supervised",
            steps=steps,
            batch=self.options.batch,
            lr=6e-4 * rate,
            trunk_lr=1e-4 * rate,
            views=self.options.views,
            dropout=0.2,
            weight_decay=0.1,
            ema=0.99,
            evaluate=0,
        )
        recipe = replace(recipe, stages=(stage,))
        cache = self.options.cache or self.out / "cache"
        return train(Run(recipe, self.corpus, out, cache, start), self.accelerator)


def rows(options: argparse.Namespace) -> Iterator[Row]:
    """The leading rows first, so that a run that is stopped has the most telling ones."""
    first, *others = options.seeds
    for how in (TRAINED, BOLTED):
        for tokens in (196, 49, 98, 25):
            for reducer in ["none"] if tokens == 196 else without_none():
                if (tokens, how) != (196, BOLTED):
                    yield Row(reducer, tokens, how, first)
    for seed in others:
        for reducer in options.leaders:
            yield Row(reducer, options.leading_tokens, TRAINED, seed)


def without_none() -> list[str]:
    """The reducers that reduce."""
    return [name for name in REDUCERS if name != "none"]


def measure(options: argparse.Namespace, study: Study, row: Row) -> None:
    """Make one row: its student, its bundle, its figures."""
    folder: Path = options.out / row.name
    checkpoint = study.checkpoint(row)
    bundle = folder / "bundle"
    precision = ("--precision", "fp32", "--beams", "1")
    command(["convert", str(checkpoint), "--out", str(bundle), *precision, "--overwrite"])
    found = scored(str(bundle), options.val, beams=1)
    (folder / "figures.json").write_text(json.dumps(found), encoding="utf-8")


def milliseconds(encoders: Sequence[Callable[[], object]]) -> list[float]:
    """Median time of each encoder at one thread, all of them in turns."""
    times: list[list[float]] = [[] for _ in encoders]
    for _ in range(ROUNDS):
        for found, encode in zip(times, encoders, strict=True):
            begun = time.perf_counter()
            encode()
            found.append(1000 * (time.perf_counter() - begun))
    return [statistics.median(found) for found in times]


def onnx_encoder(folder: Path, pixels: np.ndarray) -> Callable[[], object]:
    """`begin` of a row in ONNX Runtime: the encoder, and next to nothing besides."""
    bundle = Bundle(folder / "bundle")
    artifact = bundle.manifest.artifacts[0]
    engine = load_engine(artifact, bundle.load(artifact), threads=1)
    return lambda: engine.begin(pixels, 1, 0, 1, 1.0)


def executorch_encoder(folder: Path, pixels: np.ndarray) -> Callable[[], object]:
    """The encoder of a row in ExecuTorch, lowered once; the process has one thread then."""
    import torch
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime

    from nanocap.convert.executorch.encoder import EncodeOne
    from nanocap.convert.executorch.lowering import lower
    from nanocap.convert.executorch.tables import FloatTable

    file = folder / "encode.pte"
    if not file.exists():
        print(f"{folder.name}: lowering for ExecuTorch", file=sys.stderr)
        student = Student.load(folder / "student.safetensors")[0]
        encoder = EncodeOne(student, FloatTable).eval()
        program = torch.export.export(encoder, (torch.from_numpy(pixels),))
        file.write_bytes(lower({"encode": program}, {})[0])
    if portable_lib._threadpool_get_thread_count() != 1:
        portable_lib._unsafe_reset_threadpool(1)
    data = file.read_bytes()
    program = Runtime.get().load_program(data)
    method, inputs = program.load_method("encode"), [torch.from_numpy(pixels)]
    return lambda: (program, data, method.execute(inputs))[2]  # which its methods point into


def table(out: Path, done: Sequence[Row], executorch: bool = False) -> str:
    """Markdown: the figures of all rows that are there."""
    pixels = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
    # one of each graph, since weights do not matter; to lower one takes half a minute
    graphs = {(row.reducer, row.tokens): row for row in reversed(done)}
    engines = {"encoder, ms": [onnx_encoder(out / row.name, pixels) for row in graphs.values()]}
    if executorch:
        engines["in ExecuTorch, ms"] = [
            executorch_encoder(out / row.name, pixels) for row in graphs.values()
        ]
    times = iter(milliseconds([encode for column in engines.values() for encode in column]))
    columns = {name: dict(zip(graphs, times, strict=False)) for name in engines}
    head = ("reducer", "tokens", "", "seed", "CIDEr", "BLEU-4", "different captions", *columns)
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in sorted(done, key=lambda row: (row.how, -row.tokens, row.reducer, row.seed)):
        figures = json.loads((out / row.name / "figures.json").read_text(encoding="utf-8"))
        cells = [interval(figures, name) for name in ("cider", "bleu4", "distinct")]
        taken = [f"{column[row.reducer, row.tokens]:.2f}" for column in columns.values()]
        about = (f"`{row.reducer}`", str(row.tokens), row.how, str(row.seed))
        lines.append(f"| {' | '.join((*about, *cells, *taken))} |")
    return "\n".join(lines)


def interval(figures: dict[str, dict[str, float]], name: str) -> str:
    """A figure with its interval."""
    value = figures[name]
    return f"{value['value']:.1f} [{value['low']:.1f}, {value['high']:.1f}]"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--val", required=True, help="shards to score on (a glob, quoted)")
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="whose photos to train on")
    parser.add_argument("--data", type=Path, help="folder of the recipe's shards")
    parser.add_argument("--cache", type=Path, help="prepared photos and maps  [OUT/cache]")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument(
        "--leaders",
        nargs="+",
        default=["merge", "pool", "keep-cluster"],
        choices=without_none(),
        help="reducers that further seeds are spent on",
    )
    parser.add_argument("--leading-tokens", type=int, default=49, choices=list(BUDGETS))
    parser.add_argument("--batch", type=int, default=32, help="photos a step")
    parser.add_argument("--base-steps", type=int, default=800)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--views", type=int, default=3)
    parser.add_argument(
        "--executorch", action="store_true", help="time the encoders in ExecuTorch too, at the end"
    )
    parser.add_argument("--only", nargs="*", help="names of rows, such as merge-49-trained-1")
    options = parser.parse_args()
    recipe = load_recipe(options.recipe)
    done, studies = [], {}
    for row in rows(options):
        if options.only and row.name not in options.only:
            continue
        done.append(row)
        if (options.out / row.name / "figures.json").exists():
            continue
        print(row.name, file=sys.stderr)
        if row.seed not in studies:
            studies[row.seed] = Study(options, recipe, row.seed)
        measure(options, studies[row.seed], row)
        if not options.only:
            (options.out / "table.md").write_text(table(options.out, done) + "\n", encoding="utf-8")
    print(table(options.out, done, options.executorch))
    return 0


if __name__ == "__main__":
    sys.exit(main())
