"""`nanocap eval`: score bundles, teachers, or captions from a file, on photos."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nanocap.cli.options import PATH, json_option, page_option, threads_option
from nanocap.cli.output import say_table, tell
from nanocap.cli.photos import Troubles, asked_source, read_examples
from nanocap.cli.speakers import Question, is_bundle, listen
from nanocap.errors import DataError
from nanocap.measure.metrics.reference import SCORERS

if TYPE_CHECKING:
    from nanocap.measure.metrics.evaluation import Difference, Evaluation, Matcher


SHOWN_WORN = 3  # phrases in the table


@click.command()
@click.argument("targets", nargs=-1, metavar="[BUNDLE|CAPTIONS|TEACHER]...")
@click.option(
    "--data",
    help="WebDataset shards (a glob, quoted), a .jsonl or .parquet table, or a folder: of labels, "
    "with such a table in it, or with a .txt or .json beside each photo.",
)
@click.option("--recipe", type=PATH, help="A recipe: with --source.")
@click.option("--source", "name", help="Score what the recipe held out of this source.")
@click.option("--data-root", type=PATH, help="Instead of the recipe's root.")
@click.option("--artifact", help="Artifact of the bundle.  [default: its first]")
@click.option(
    "--beams", type=click.IntRange(1, 64), help="[default: the bundle's; 3 for a teacher]"
)
@click.option(
    "--length", type=click.Choice(["any", "short", "long"]), help="[default: the bundle's]"
)
@click.option(
    "--n-best",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Generate N captions a photo and also score the best of them (oracle).",
)
@click.option("--batch-size", type=click.IntRange(1, 1024), default=16, show_default=True)
@threads_option
@click.option(
    "--seen",
    multiple=True,
    help="Shards or a table of the training data: reports the share of captions that stand there "
    "word for word. Repeatable.",
)
@click.option(
    "--skip",
    multiple=True,
    type=click.Choice(list(SCORERS)),
    help="A scorer to leave out; meteor takes most of the time. Repeatable.",
)
@click.option(
    "--scorer",
    "judge",
    type=PATH,
    help="The scorer.safetensors of `nanocap scorer`: reports how often a caption finds its photo "
    "among a hundred.",
)
@click.option("--captions", type=PATH, help="Write the captions here as well.")
@click.option(
    "--record",
    metavar="NAME",
    help="Write the figures into BUNDLE's manifest and model card, as those on photos of NAME.",
)
@page_option("a page of figures, photos, and where the decoder looked")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    targets: tuple[str, ...],
    data: str | None,
    recipe: Path | None,
    name: str | None,
    data_root: Path | None,
    artifact: str | None,
    beams: int | None,
    length: str | None,
    n_best: int,
    batch_size: int,
    threads: int | None,
    seen: tuple[str, ...],
    skip: tuple[str, ...],
    judge: Path | None,
    captions: Path | None,
    record: str | None,
    page: Path | None,
    as_json: bool,
) -> None:
    """Score a bundle (default: the model inside the package) on photos with reference captions.

    Instead of a bundle, a .jsonl file of captions that somebody has ("image" and "caption" a
    line), or a teacher as `nanocap label` takes it: student:CHECKPOINT, hf:ID_OR_PATH, or
    ensemble:A,B,... of them. Two of any are compared on the same photos, pair by pair. Every
    figure comes with its 95 % interval over the choice of photos.

    CIDEr, BLEU, ROUGE-L, METEOR and SPICE come from pycocoevalcap with its PTB tokenizer, which
    needs Java.

    \b
    Examples:
      nanocap eval --data 'flickr8k-val-*.tar'
      nanocap eval my-bundle --artifact onnx-fp32 --data photos/captions.jsonl
      nanocap eval my-bundle theirs.jsonl --data 'flickr8k-val-*.tar'
      nanocap eval student:runs/house-2/student.safetensors --data 'flickr8k-val-*.tar'
      nanocap eval --data 'flickr8k-val-*.tar' --report page
      nanocap eval --data 'flickr8k-val-*.tar' --scorer runs/scorer/scorer.safetensors
      nanocap eval --recipe distill/recipes/nano-s.toml --source coco-human
      nanocap eval my-bundle --data 'flickr8k-val-*.tar' --record flickr8k-val
    """
    if len(targets) > 2:
        raise click.UsageError("one is scored, or two are compared; not more")
    if record is not None and (len(targets) != 1 or not is_bundle(targets[0])):
        raise click.UsageError("--record writes into one bundle: name it")
    import pycocoevalcap  # noqa: F401  # now rather than once everything is captioned
    import simplemma  # noqa: F401

    from nanocap.distill.data.sources import folder_of
    from nanocap.measure.metrics.evaluation import compare, differences_to_dict, evaluate, oddities

    if page is not None:
        from nanocap.measure.report.cards import Photo
        from nanocap.measure.report.eval_page import write_eval_page
    troubles = Troubles()
    source, root = asked_source(data, recipe, name, data_root)
    examples = read_examples(source, root, recipe is not None, troubles)
    keys = [example.key for example in examples]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise DataError(f"{twice}: two photos have this key")
    known = _seen(seen) if seen else None
    if judge is not None and not judge.is_file():
        raise DataError(f"{judge}: there is no such scorer; `nanocap scorer` trains one")
    folder = folder_of(source, root)
    folders = [folder] if folder is not None else []
    question = Question(
        examples, troubles.add, artifact, threads, beams, length, n_best, batch_size, folders
    )
    answers = [listen(target, question) for target in targets or (None,)]
    candidates = [answer.candidates for answer in answers]
    sets = [{key: texts[0] for key, texts in several.items()} for several in candidates]
    if captions is not None:
        lines = (json.dumps({"image": key, "caption": text}) for key, text in sets[0].items())
        captions.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    for texts in sets:
        for kind, odd in oddities(texts).items():
            if odd:
                tell(f"{len(odd)} captions are {kind} (first: {odd[0]!r}): scored as they are")
    common = set.intersection(*(set(texts) for texts in sets))
    references = {e.key: e.captions for e in examples if e.key in common}
    scorers = [name for name in SCORERS if name not in skip]
    matcher = _matcher(judge, {e.key: e.image for e in examples if e.key in common})
    evaluations = [
        evaluate(
            {key: texts[key] for key in references},
            references,
            known,
            scorers,
            several if any(len(found) > 1 for found in several.values()) else None,
            matcher,
            answer.confidences,
        )
        for texts, several, answer in zip(sets, candidates, answers, strict=True)
    ]
    if record is not None:
        _record(Path(targets[0]), artifact, record, evaluations[0])
    rows = compare(*evaluations) if len(evaluations) == 2 else []
    if as_json:
        values = evaluations[0].to_dict()
        if rows:
            values["compared"] = differences_to_dict(rows)
        click.echo(json.dumps({**values, "left_out": troubles.count}))
    else:
        say_table(_comparison(rows, targets) if rows else _table(evaluations[0]))
        click.echo(f"\n{len(references)} photos, {troubles.count} left out")
    if page is not None:
        scored = [Photo(e.key, e.image, e.captions) for e in examples if e.key in common]
        sides = [answer.side for answer in answers]
        write_eval_page(page, sides, evaluations, rows, scored, troubles.count)
    ctx.exit(1 if troubles.count else 0)


def _matcher(path: Path | None, photos: Mapping[str, bytes]) -> Matcher | None:
    """Each photo is looked at once, however many sets of captions are scored."""
    if path is None:
        return None
    import numpy as np

    from nanocap.distill.teachers.similarity import ImageTextScorer

    scorer = ImageTextScorer.load(path)
    seen = dict(zip(photos, scorer.embed_images(list(photos.values())), strict=True))

    def match(texts: Sequence[str], keys: Sequence[str]) -> Any:
        return scorer.embed_texts(texts) @ np.stack([seen[key] for key in keys]).T

    return match


def _record(bundle: Path, artifact: str | None, name: str, evaluation: Evaluation) -> None:
    from nanocap.bundle import Bundle, quality

    chosen = artifact if artifact is not None else Bundle(bundle).manifest.artifacts[0].name
    figures = evaluation.to_dict()
    del figures["worn_phrases"]  # which they are: the largest excess is among the figures
    del figures["missing"]  # why this machine could not measure more is no figure of the model
    quality.record(bundle, chosen, name, figures)


def _table(evaluation: Evaluation) -> str:
    lines = []
    for measure in evaluation.measures:
        found = measure.interval()
        lines.append(f"{measure.label:24}{found.value:9.2f}   [{found.low:.2f}, {found.high:.2f}]")
    lines += [f"{one.label:24}        -   {one.reason}" for one in evaluation.missing]
    lines += [
        f'{"worn phrase":24}{one.ours:9.1f} % of captions have "{one.text}",'
        f" {one.people:.1f} % of people's"
        for one in evaluation.worn[:SHOWN_WORN]
    ]
    return "\n".join(lines)


def _comparison(rows: Sequence[Difference], targets: Sequence[str]) -> str:
    names = {"first": targets[0], "second": targets[1]}
    lines = [f"{'':24}{'first':>9}{'second':>9}{'difference':>12}   95 % interval, who is better"]
    for row in rows:
        interval = f"[{row.difference.low:+.2f}, {row.difference.high:+.2f}]"
        lines.append(
            f"{row.label:24}{row.first.value:9.2f}{row.second.value:9.2f}"
            f"{row.difference.value:+12.2f}   {interval}  {names.get(row.verdict, row.verdict)}"
        )
    return "\n".join(lines)


def _seen(patterns: Sequence[str]) -> set[str]:
    from nanocap.distill.data.sources import read_source, source_of

    return {
        text
        for pattern in patterns
        for example in read_source(source_of(pattern), Path())
        for text in example.captions
    }
