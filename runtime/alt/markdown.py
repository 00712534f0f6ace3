"""Pictures of Markdown without alternative text: `![](photo.jpg)`, and the `<img>` between.

By CommonMark, https://spec.commonmark.org/0.31.2/#images: what stands in code is none. Markdown
knows no decoration, so an empty text counts as missing, as markdownlint's rule MD045 has it.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

from nanocap.runtime.alt import html
from nanocap.runtime.alt.picture import Picture

FENCE = re.compile(r"^ {0,3}(`{3,}(?=[^`\n]*$)|~{3,})", re.MULTILINE)
INDENTED = re.compile(r"(?:\A|(?<=\n\n)|(?<=\r\n\r\n))(?:(?: {4}|\t)[^\n]*(?:\n|\Z))+")
LIST_ITEM = re.compile(r"\s*(?:[-+*]|\d{1,9}[.)])(?:\s|$)")
TICKS = re.compile(r"(?<!\\)`+")
FRONT = re.compile(r"\A\ufeff?(---|\+\+\+)[ \t]*\r?\n.*?^\1[ \t]*$", re.DOTALL | re.MULTILINE)
IMAGE = re.compile(
    r"""(?<!\\)!\[[ \t]*\]
    (?: \( \s* (?: <(?P<angled>[^<>\n]*)> | (?P<plain>[^\s<()][^\s()]*(?:\([^\s()]*\)[^\s()]*)*) )
        (?: \s+ (?: "[^"]*" | '[^']*' | \([^()]*\) ) )? \s* \)
      | \[ (?P<label>[^\[\]]+) \] )""",
    re.VERBOSE,
)
DEFINITION = re.compile(
    r"^ {0,3}\[(?P<label>[^\[\]]+)\]:\s*(?:<(?P<angled>[^<>\n]*)>|(?P<plain>\S+))", re.MULTILINE
)
SPECIAL = re.compile(r"([\\\[\]`*_<>&])")
ESCAPED = re.compile(r"\\([!-/:-@\[-`{-~])")


def find(text: str) -> list[Picture]:
    """Pictures of a Markdown or MDX document that have no alternative text, in their order."""
    visible = _without_code(text)
    defined = {
        _label(found["label"]): found["angled"] or found["plain"]
        for found in reversed(list(DEFINITION.finditer(visible)))
    }
    pictures = html.find(_without_destinations(visible))
    for found in IMAGE.finditer(visible):
        address = found["angled"] if found["angled"] is not None else found["plain"]
        if address is None:
            address = defined.get(_label(found["label"]))
            if address is None:
                continue  # text, as nobody defines what it refers to
        inside = found.start() + 2
        line = text.count("\n", 0, found.start()) + 1
        address = ESCAPED.sub(r"\1", address)
        pictures.append(Picture((address,) if address else (), line, inside, Words()))
    return sorted(pictures, key=lambda picture: picture.place)


@dataclass(frozen=True)
class Words:
    """Words as the text of an image."""

    def __call__(self, words: str) -> str:
        return SPECIAL.sub(r"\\\1", words)


def _label(text: str) -> str:
    return " ".join(text.split()).casefold()


def _without_destinations(text: str) -> str:
    """With blanks for addresses between angle brackets, which are no tags."""
    for pattern in (DEFINITION, IMAGE):
        for match in pattern.finditer(text):
            start, end = match.span("angled")
            if start >= 0:
                text = text[: start - 1] + " " * (end - start + 2) + text[end + 1 :]
    return text


def _without_code(text: str) -> str:
    """The document with blanks where code stands; each character keeps its place."""
    kept = list(text)

    def blank(start: int, end: int) -> None:
        kept[start:end] = ["\n" if c == "\n" else " " for c in kept[start:end]]

    front = FRONT.match(text)
    place = 0
    if front is not None:
        blank(0, front.end())
        place = front.end()
    while (opening := FENCE.search(text, place)) is not None:
        mark = opening[1]
        closing = re.compile(
            rf"^ {{0,3}}{re.escape(mark[0])}{{{len(mark)},}}[ \t]*\r?$", re.MULTILINE
        )
        closed = closing.search(text, opening.end())
        place = len(text) if closed is None else closed.end()
        blank(opening.start(), place)
    visible = "".join(kept)
    for found in INDENTED.finditer(visible):
        before = visible[: found.start()].rstrip().rpartition("\n")[2]
        if not (
            LIST_ITEM.match(before) or before[:1] in (" ", "\t")
        ):  # else it goes on with a list
            blank(*found.span())
    visible = "".join(kept)
    place = 0
    later: dict[int, deque[int]] = {}  # of each number of ticks, where so many stand
    runs = [(found.start(), found.end()) for found in TICKS.finditer(visible)]
    for start, end in runs:
        later.setdefault(end - start, deque()).append(start)
    for start, end in runs:
        if start < place:
            continue
        same = later[end - start]
        while same and same[0] <= start:
            same.popleft()
        if same and "\n\n" not in visible[end : same[0]]:
            place = same[0] + (end - start)
            blank(start, place)
    return "".join(kept)
