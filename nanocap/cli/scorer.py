"""`nanocap scorer`: train an image-text scorer over a student's encoder."""

from __future__ import annotations

import json
from pathlib import Path

import click

from nanocap.cli.options import OUT, PATH, training_options
from nanocap.cli.output import say_table
from nanocap.errors import one_line


@click.command()
@click.argument("recipe", type=PATH)
@click.option("--out", required=True, type=PATH, help=OUT)
@training_options
@click.option(
    "--start", type=PATH, help="Finished student whose trunk is shared, instead of the recipe's."
)
@click.option("--onnx", is_flag=True, help="Write OUT/onnx too: both towers, for devices.")
def command(
    recipe: Path,
    out: Path,
    data: Path | None,
    start: Path | None,
    cache: Path | None,
    onnx: bool,
    precision: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Train a scorer as RECIPE says; the result is OUT/scorer.safetensors.

    Kill it at any moment and run the same command again: it goes on from its last checkpoint, with
    the losses of a run that was never interrupted. OUT/metrics.jsonl shows how it goes; `recall` is
    how often a photo set aside finds its caption among a hundred.

    \b
    Examples:
      nanocap scorer distill/scorer/recipes/scorer-nano-s.toml --out runs/scorer
      nanocap scorer my.toml --out runs/mine --start runs/nano-s/student.safetensors --onnx
    """
    from nanocap.distill.data.corpus import prepare
    from nanocap.distill.scorer.recipe import load_scorer_recipe
    from nanocap.distill.scorer.trainer import ScorerRun, train_scorer
    from nanocap.distill.training.run import Start
    from nanocap.student.devices import keep_freed_memory, mixed_precision, use_threads

    keep_freed_memory()
    use_threads(threads)
    loaded = load_scorer_recipe(recipe)
    root = data if data is not None else recipe.parent / loaded.data.root
    cache = cache if cache is not None else out / "cache"
    student = Start(start if start is not None else recipe.parent / loaded.start)
    corpus = prepare(loaded.captioner(), root, cache, student.tokenizer)
    run = ScorerRun(loaded, corpus, student, out, cache)
    result = train_scorer(run, narrow=mixed_precision(precision) == "bf16")
    answer: dict[str, object] = {"result": str(result)}
    if onnx:
        from nanocap.convert.scorer import export_scorer

        exported = export_scorer(result, out / "onnx", overwrite=True)
        answer |= {"onnx": str(out / "onnx"), "bytes": exported.bytes}
    say_table(json.dumps(answer) if as_json else "\n".join(map(one_line, answer.values())))
