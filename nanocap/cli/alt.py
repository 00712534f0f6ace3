"""`nanocap alt PATH...`: alternative text for the images of documents."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nanocap.cli.output import say, tell
from nanocap.errors import DataError, ImageError
from nanocap.progress import Progress

if TYPE_CHECKING:
    from nanocap.caption import Caption
    from nanocap.runtime.alt.documents import AnyDocument
    from nanocap.runtime.alt.picture import Picture
    from nanocap.runtime.captioner import Captioner

EXAMPLES = """\
\b
Examples:
  nanocap alt site/                 each image without alt, and words for it; nothing is changed
  nanocap alt --check site/         list them only; exit code 1 if there are any, for CI
  nanocap alt --diff site/          the changes as a patch
  nanocap alt --write site/ README.md   put the words into the files
  nanocap alt --json site/          one JSON object a line:
    {"document": PATH, "line": N, "image": ADDRESS, "alt": TEXT, "confidence": 0 to 1}
    {"document": PATH, "line": N, "image": ADDRESS, "alt": null, "reason": TEXT}

\b
Documents: HTML and XHTML, templates of PHP, Jinja, Liquid and others, Markdown and MDX,
reStructuredText, EPUB. Images are files, or data: in the document; nothing is fetched from the web.
What people wrote stays, and so do alt="", role="presentation" and aria-hidden. Where only a person
can know the words (a link that holds nothing but an image, a button), the image is listed.
A caption is a guess: read what --write has written.
Exit codes: 0 no image is left without words, 1 some are, 2 wrong usage.
"""


@click.command(epilog=EXAMPLES, no_args_is_help=True)
@click.argument(
    "paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option("--check", is_flag=True, help="List images without alternative text only.")
@click.option("--diff", is_flag=True, help="Print the changes as a patch.")
@click.option("--write", is_flag=True, help="Put the words into the documents.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.option(
    "--root",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder at which /images/photo.jpg begins; nothing outside is read.  [default: PATH if it"
    " is a folder, else the current folder or that of PATH]",
)
@click.option(
    "--min-confidence",
    type=click.FloatRange(0, 1),
    default=0.0,
    help="Leave images whose caption is less likely to be true.",
)
@click.option(
    "--people",
    type=click.Choice(["person", "as-seen"]),
    default="person",
    show_default=True,
    help="Leave out age, ethnicity and gender, or keep what the model says.",
)
@click.option("--length", type=click.Choice(["short", "long"]), help="Ask for short or long words.")
@click.option("--bundle", metavar="PATH", help="Bundle, a folder or .zip.  [default: built in]")
@click.pass_context
def command(
    ctx: click.Context,
    paths: tuple[Path, ...],
    check: bool,
    diff: bool,
    write: bool,
    as_json: bool,
    root: Path | None,
    min_confidence: float,
    people: str,
    length: str | None,
    bundle: str | None,
) -> None:
    """Give the images of documents alternative text.

    PATH is a document, or a folder with documents. Without an option that says otherwise the words
    are shown and nothing is changed.
    """
    if check + diff + write > 1:
        raise click.UsageError("--check, --diff and --write: give one of them")
    from nanocap.runtime.alt.documents import open_document

    report = Report(as_json, diff)
    writer = None if check else Writer(people, length, bundle, min_confidence)
    found = list(_found(paths, root, report))
    with Progress(len(found)) as progress:
        for place in found:
            progress.clear()
            try:
                document = open_document(place.path)
                words = report.show(document, writer, place.root)
                if words and diff:
                    report.patch(document, document.with_words(words))
                elif words and write:
                    document.write(document.with_words(words))
            except DataError as error:
                report.failed(error)
            progress.step()
    ctx.exit(1 if report.left else 0)


@dataclass(frozen=True)
class Place:
    """A document, and the folder that its images must be in."""

    path: Path
    root: Path


def _found(paths: tuple[Path, ...], root: Path | None, report: Report) -> Iterator[Place]:
    from nanocap.runtime.alt.documents import KINDS, documents_in

    here = Path.cwd()
    for path in paths:
        if not path.is_dir():
            below = path.resolve().is_relative_to(here)
            yield Place(path, root or (here if below else path.parent))
            continue
        count = 0
        for document in documents_in(path):
            count += 1
            yield Place(document, root or path)
        if not count:
            known = ", ".join(sorted(KINDS))
            report.failed(DataError(f"{path}: no documents in this folder; known are {known}"))


class Writer:
    """Words for pictures, by a captioner that is loaded once there is a picture."""

    def __init__(self, people: str, length: str | None, bundle: str | None, least: float):
        self._people, self._length, self._bundle, self._least = people, length, bundle, least
        self._captioner: Captioner | None = None
        self._captions: dict[Path, Caption] = {}  # a site shows its images more than once

    def words(self, picture: Picture, document: AnyDocument, root: Path) -> tuple[str, Caption]:
        """Words for one picture, and the caption that they are from.

        Raises:
            ImageError: it cannot be read, or it is left to a person.
        """
        from nanocap.runtime.alt.wording import alternative

        if picture.reason:
            raise ImageError(picture.reason)
        image = document.image(picture, root)
        caption = self._captions.get(image) if isinstance(image, Path) else None
        if caption is None:
            caption = self._caption(image)
        if isinstance(image, Path):
            self._captions[image] = caption
        if caption.confidence < self._least:
            raise ImageError(
                f"the caption is not sure enough ({caption.confidence:.2f}): {caption.text}"
            )
        return alternative(caption.text, self._people), caption

    def _caption(self, image: Path | bytes) -> Caption:
        from nanocap.image.image import load_rgb
        from nanocap.runtime.alt.addresses import SHORTEST_SIDE
        from nanocap.runtime.captioner import Captioner

        if self._captioner is None:
            self._captioner = Captioner(self._bundle)
        whole = load_rgb(image)
        if min(whole.size) < SHORTEST_SIDE:
            raise ImageError(
                'it is too small to show anything: if it is no content, give it alt=""'
            )
        return self._captioner(whole, length=self._length)  # decoded once


class Report:
    """Says what becomes of each picture, and counts those that are left without words."""

    def __init__(self, as_json: bool, diff: bool):
        self._as_json, self._diff = as_json, diff
        self.left = 0

    def show(self, document: AnyDocument, writer: Writer | None, root: Path) -> dict[int, str]:
        """Words for a document's pictures, by their place; each is printed."""
        words: dict[int, str] = {}
        for number, picture in enumerate(document.pictures):
            name = "/".join(filter(None, (str(document.path), picture.page)))
            where = {"document": name, "line": picture.line, "image": picture.name}
            if writer is None:
                self.left += 1
                reason = picture.reason or "no alternative text"
                self._line({**where, "alt": None, "reason": reason}, reason)
                continue
            try:
                words[number], caption = writer.words(picture, document, root)
            except ImageError as error:
                self.left += 1
                self._line({**where, "alt": None, "reason": str(error)}, f"left: {error}", True)
            else:
                sure = round(caption.confidence, 4)
                self._line({**where, "alt": words[number], "confidence": sure}, words[number])
        return words

    def patch(self, document: AnyDocument, data: bytes) -> None:
        """The change of a document, for `patch` or `git apply`."""
        if b"\0" in document.data:  # as git has it
            say(f"Binary file {document.path} changes")
            return
        old, new = (
            text.decode("utf-8", "surrogateescape").splitlines(keepends=True)
            for text in (document.data, data)
        )
        name = document.path.as_posix()
        lines = difflib.unified_diff(old, new, f"a/{name}", f"b/{name}")
        for line in lines:
            ended = line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
            click.echo(ended.encode("utf-8", "surrogateescape"), nl=False)

    def failed(self, error: DataError) -> None:
        """A document that could not be read or written."""
        self.left += 1
        tell(error)

    def _line(self, values: dict[str, object], text: str, left: bool = False) -> None:
        line = f"{values['document']}:{values['line']}: {values['image']}: {text}"
        if self._as_json:
            if not self._diff:
                say(json.dumps(values))
        elif self._diff:
            if left:
                tell(line)
        else:
            say(line)
