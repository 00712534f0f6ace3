"""`nanocap caption PATH...`: a sentence a photo."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import click

from nanocap.bounds import BATCH, MAX_BATCH, MAX_BEAMS, MAX_PIXELS
from nanocap.cli.output import tell
from nanocap.cli.paths import STANDARD_INPUT, find
from nanocap.errors import ImageError, OptionError, one_line
from nanocap.progress import Progress
from nanocap.runtime.engines.providers import PROVIDERS

if TYPE_CHECKING:
    from nanocap.bundle.manifest import Manifest
    from nanocap.caption import Caption
    from nanocap.runtime.first import First

EXAMPLES = """\
\b
Examples:
  nanocap caption photo.jpg                  one photo: the sentence alone
  nanocap caption holiday/ cat.png           PATH, a tab, the sentence
  find . -name '*.jpg' | nanocap caption -   a list of paths from another program
  find . -name '*.jpg' -print0 | nanocap caption -0 -   the same, whatever is in the names
  nanocap caption --json holiday/            one JSON object a line:
    {"image": PATH, "caption": TEXT, "confidence": 0 to 1}
    {"image": PATH, "error": TEXT}
  nanocap caption --length short --beams 1 photo.jpg
  nanocap caption --avoid man --avoid woman --require bicycle photo.jpg
  nanocap caption --n-best 3 --json photo.jpg
    {"image": PATH, "caption": TEXT, "confidence": 0 to 1, "alternatives": [
      {"caption": TEXT, "confidence": 0 to 1}, ...]}

\b
  nanocap caption --min-confidence 0.5 photo.jpg   "May be: A dog in the snow."
  nanocap caption --min-confidence 0.5 --abstain holiday/   no sentence instead; null in JSON

\b
  nanocap caption --deadline-ms 50 photo.jpg   with a bundle of several token budgets
  nanocap caption --provider cuda photo.jpg    what is missing is said, and the CPU runs

\b
Photos that fail are named on standard error; the others are still captioned.
Exit codes: 0 all captioned, 1 some failed, 2 wrong usage.
"""


@click.command(epilog=EXAMPLES, no_args_is_help=True)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.option("--bundle", metavar="PATH", help="Bundle, a folder or .zip.  [default: built in]")
@click.option(
    "--length",
    type=click.Choice(["short", "long"]),
    help="Ask for a short or a long sentence.  [default: the bundle's]",
)
@click.option(
    "--beams",
    type=click.IntRange(1, MAX_BEAMS),
    help="Beam width; 1 is fastest.  [default: the bundle's]",
)
@click.option(
    "--n-best",
    type=click.IntRange(1, MAX_BEAMS),
    default=1,
    show_default=True,
    help="Sentences to print, best first; --beams is at least as many.",
)
@click.option(
    "--avoid", multiple=True, metavar="WORD", help="Word or phrase not to say; repeatable."
)
@click.option("--require", multiple=True, metavar="WORD", help="Word or phrase to say; repeatable.")
@click.option(
    "--min-confidence",
    type=click.FloatRange(0, 1),
    default=0.0,
    help="Begin sentences that are less likely to be true with 'May be:'.",
)
@click.option("--abstain", is_flag=True, help="With --min-confidence: leave them out instead.")
@click.option(
    "--batch-size",
    type=click.IntRange(1, MAX_BATCH),
    help="Photos through the model at once.  "
    f"[default: {BATCH}; 1 for a list on standard input, whose next photo may take its time]",
)
@click.option("-0", "--null", is_flag=True, help="Paths on standard input end with a NUL byte.")
@click.option("--artifact", metavar="NAME", help="Artifact of the bundle.  [default: its first]")
@click.option("--tokens", type=click.IntRange(1), help="Use the artifact with N visual tokens.")
@click.option(
    "--deadline-ms",
    type=click.FloatRange(0, min_open=True),
    help="Take the artifact with most visual tokens that captions within so many milliseconds here,"
    " measured at the start.",
)
@click.option(
    "--provider",
    "providers",
    multiple=True,
    type=click.Choice(list(PROVIDERS)),
    help="Execution provider of ONNX Runtime to prefer over the CPU; repeatable, best first.",
)
@click.option(
    "--strict-provider", is_flag=True, help="Fail, rather than warn, where one is not available."
)
@click.option("--threads", type=click.IntRange(1), help="Threads of the model.  [default: cores]")
@click.option(
    "--max-pixels",
    type=click.IntRange(1),
    default=MAX_PIXELS,
    show_default=True,
    help="Refuse larger photos before decoding them.",
)
@click.pass_context
def command(
    ctx: click.Context,
    paths: tuple[str, ...],
    as_json: bool,
    bundle: str | None,
    length: str | None,
    beams: int | None,
    n_best: int,
    avoid: tuple[str, ...],
    require: tuple[str, ...],
    min_confidence: float,
    abstain: bool,
    batch_size: int | None,
    null: bool,
    artifact: str | None,
    tokens: int | None,
    deadline_ms: float | None,
    providers: tuple[str, ...],
    strict_provider: bool,
    threads: int | None,
    max_pixels: int,
) -> None:
    """Caption each photo in one sentence.

    PATH is a photo, a folder (with the folders in it), or - for a list of paths, one a line, on
    standard input.
    """
    ctx.with_resource(warnings.catch_warnings())
    warnings.filterwarnings("ignore", module="PIL")  # notes about odd files, for programmers
    warnings.showwarning = _show
    if abstain and not min_confidence:
        raise click.UsageError("--abstain needs --min-confidence: how sure is sure enough")
    listed = STANDARD_INPUT in paths
    named = len(paths) > 1 or listed or os.path.isdir(paths[0])
    report = Report(as_json, named, Doubt(min_confidence, abstain))
    found: Iterable[str] = chain.from_iterable(
        find(path, report.failure, null=null) for path in paths
    )
    if listed:
        progress = Progress(None)
    else:
        found = list(found)
        progress = Progress(len(found))
    report.progress = progress

    waiting: deque[str] = deque()

    def sources() -> Iterator[str]:
        for path in found:
            waiting.append(path)
            yield path

    if found and ctx.obj is not None:
        first: First = ctx.obj  # this one photo's model is on the way
        _check(first.bundle.manifest, min_confidence)
        try:
            one: Caption | ImageError = first.caption(
                paths[0],
                max_pixels=max_pixels,
                beams=beams,
                length=length,
                n_best=n_best,
                avoid=avoid,
                require=require,
            )
        except ImageError as error:
            one = error
        report.outcome(paths[0], one)
    elif found:
        from nanocap.runtime.captioner import Captioner

        captioner = Captioner(
            bundle,
            artifact=artifact,
            tokens=tokens,
            deadline_ms=deadline_ms,
            providers=providers,
            strict_providers=strict_provider,
            # of one photo, more threads would take longer to start than they save
            threads=threads if threads or report.named else 1,
            max_pixels=max_pixels,
        )
        _check(captioner.manifest, min_confidence)
        outcomes = captioner.attempt(
            sources(),
            batch_size=batch_size or (1 if listed else BATCH),
            beams=beams,
            length=length,
            n_best=n_best,
            avoid=avoid,
            require=require,
        )
        for outcome in outcomes:
            report.outcome(waiting.popleft(), outcome)
            progress.step()
    progress.clear()
    ctx.exit(1 if report.failures else 0)


def _show(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning in the form of our errors, without the line of code that gave it."""
    tell(message)


def _check(manifest: Manifest, min_confidence: float) -> None:
    if min_confidence and manifest.confidence is None:
        raise OptionError(
            f"--min-confidence: the confidence of {manifest.name} is no probability until"
            " `nanocap calibrate` has fitted it"
        )


@dataclass(frozen=True)
class Doubt:
    """What becomes of captions that are not sure enough.

    Attributes:
        least: confidence that is enough.
        abstain: leave them out, rather than say that they are guesses.
    """

    least: float = 0.0
    abstain: bool = False

    def said(self, caption: Caption) -> str | None:
        """The sentence to show, if any."""
        if caption.confidence >= self.least:
            return caption.text
        return None if self.abstain else f"May be: {caption.text}"


class Report:
    """Prints outcomes, as JSON lines or with the path before each sentence; counts failures."""

    def __init__(self, as_json: bool, named: bool, doubt: Doubt) -> None:
        self.as_json = as_json
        self.named = named
        self.doubt = doubt
        self.failures = 0
        self.progress = Progress(0)
        # A file name need not be text in the terminal's encoding; that must not end the run.
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")

    def outcome(self, path: str, outcome: Caption | ImageError) -> None:
        """Print one caption or failure."""
        if isinstance(outcome, ImageError):
            self.failure(path, outcome)
        elif self.as_json:
            others = [self._values(one) for one in outcome.alternatives]
            more: dict[str, object] = {"alternatives": others} if others else {}
            if outcome.tags:
                more["tags"] = [
                    {"word": tag.word, "probability": round(tag.probability, 4)}
                    for tag in outcome.tags
                ]
            self._print(json.dumps({"image": path, **self._values(outcome), **more}))
        else:
            for one in (outcome, *outcome.alternatives):
                said = self.doubt.said(one)
                text = one_line(said or "")  # the pieces of a bundle may be anything
                if self.named:
                    self._print(f"{one_line(path)}\t{text}")
                elif said is not None:
                    self._print(text)

    def failure(self, path: str, error: ImageError) -> None:
        """Print one failure."""
        self.failures += 1
        if self.as_json:
            self._print(json.dumps({"image": path, "error": str(error)}))
        else:
            self.progress.clear()
            tell(error)

    def _print(self, line: str) -> None:
        self.progress.clear()
        click.echo(line)

    def _values(self, caption: Caption) -> dict[str, str | float | None]:
        return {"caption": self.doubt.said(caption), "confidence": round(caption.confidence, 4)}
