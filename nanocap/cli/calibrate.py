"""`nanocap calibrate`: fit a bundle's confidence to photos that people described."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import click

from nanocap.cli.options import PATH, json_option, threads_option
from nanocap.cli.output import say, say_table, tell
from nanocap.cli.photos import Troubles, asked_source, read_examples
from nanocap.errors import DataError, ImageError
from nanocap.progress import Progress

REFERENCES = 3  # captions that a photo needs: what one person leaves out may well be there


@click.command()
@click.argument("bundle", type=PATH)
@click.option("--data", help="Photos with captions, as `nanocap eval` takes them.")
@click.option("--recipe", type=PATH, help="A recipe: with --source.")
@click.option(
    "--source",
    "names",
    multiple=True,
    help="Take what the recipe held out of this source. Repeatable.",
)
@click.option("--data-root", type=PATH, help="Instead of the recipe's root.")
@click.option(
    "--references",
    type=click.IntRange(1),
    default=REFERENCES,
    show_default=True,
    help="Take photos that have so many captions at least.",
)
@click.option("--artifact", help="Artifact that captions them.  [default: the bundle's first]")
@threads_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    bundle: Path,
    data: str | None,
    recipe: Path | None,
    names: tuple[str, ...],
    data_root: Path | None,
    references: int,
    artifact: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Fit the confidence of BUNDLE's captions, and write it into the bundle's manifest.

    The confidence of a caption becomes the probability that all is there that it names: that each
    object in it is one that somebody named who described the photo. Take photos that the model was
    not trained on, and measure the result on yet others (`nanocap eval`: "calibration error").

    \b
    Examples:
      nanocap calibrate my-bundle --data 'held-out-*.tar'
      nanocap calibrate my-bundle --recipe distill/recipes/default.toml \\
        --source flickr8k --source coco-human
    """
    from nanocap.bundle import quality
    from nanocap.measure.calibration import fit_confidence
    from nanocap.measure.metrics.reliability import reliability
    from nanocap.runtime.captioner import Captioner

    troubles = Troubles()
    examples = [
        example
        for name in names or (None,)
        for example in read_examples(
            *asked_source(data, recipe, name, data_root), recipe is not None, troubles
        )
        if len(example.captions) >= references
    ]
    if not examples:
        raise DataError(f"no photo has {references} captions; see --references")
    captioner = Captioner(bundle, artifact=artifact, threads=threads)
    progress = Progress(len(examples), "captioning", plain=True)
    outcomes = captioner.attempt(
        (example.image for example in examples),
        batch_size=16,
        n_best=captioner.manifest.search.beams,
    )
    said = {}
    for example, outcome in zip(examples, outcomes, strict=True):
        if isinstance(outcome, ImageError):
            progress.clear()
            troubles.add(example.key, str(outcome))
        else:
            said[example.key] = outcome
        progress.step()
    progress.clear()
    texts = {key: caption.text for key, caption in said.items()}
    people = {example.key: example.captions for example in examples}
    before = {key: caption.confidence for key, caption in said.items()}
    found = reliability(before, texts, people)
    fitted = fit_confidence(list(said.values()), [bool(one) for one in found.holds])
    quality.rewrite(bundle, lambda manifest: replace(manifest, confidence=fitted))
    after = {key: fitted.of(caption) for key, caption in said.items()}
    errors = [
        reliability(one, texts, people).measures()[0].interval().value for one in (before, after)
    ]
    share = float(found.holds.mean())
    if as_json:
        values = {"photos": len(said), "holds": share, "error": errors, "weights": fitted.weights}
        say(json.dumps(values))
    else:
        lines = [f"{'captions that hold':28}{100 * share:8.1f} %"]
        lines += [f"{'calibration error, before':28}{errors[0]:8.3f}"]
        lines += [f"{'on the photos it was fitted to':28}{errors[1]:8.3f}", ""]
        lines += [f"{name:28}{weight:+8.3f}" for name, weight in fitted.weights.items()]
        say_table("\n".join(lines))
        tell(f"{len(said)} photos; {bundle} has a new manifest and card")
    ctx.exit(1 if troubles.count else 0)
