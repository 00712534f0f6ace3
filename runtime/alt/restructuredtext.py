"""Pictures of reStructuredText without alternative text: `image` and `figure` without `:alt:`.

https://docutils.sourceforge.io/docs/ref/rst/directives.html#image
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from nanocap.runtime.alt.picture import Picture

DIRECTIVE = re.compile(
    r"^(?P<indent>[ \t]*)\.\.[ \t]+(?:\|[^|\n]+\|[ \t]+)?(?:image|figure)::"
    r"[ \t]*(?P<address>[^\r\n]*?)[ \t]*(?P<end>\r?\n|\Z)",
    re.MULTILINE | re.IGNORECASE,
)
OPTION = re.compile(r"[ \t]*:(?P<name>[\w-]+):(?P<value>[^\n]*)(?:\n|\Z)")
LITERAL = re.compile(
    r"^(?P<indent>[ \t]*)(?:(?P<text>[^\r\n]*?)::[ \t]*|\.\.[ \t]+(?:code|code-block|sourcecode"
    r"|parsed-literal|raw|highlight|literalinclude)::[^\r\n]*)\r?$",
    re.MULTILINE,
)


def find(text: str) -> list[Picture]:
    """Pictures of a document that have no alternative text, in their order."""
    literal = _literal_blocks(text)
    pictures = []
    for found in DIRECTIVE.finditer(text):
        if any(start <= found.start() < end for start, end in literal):
            continue
        place, indent = found.end(), found["indent"] + "   "
        has_alt = False
        while (option := OPTION.match(text, place)) is not None and option["name"]:
            indent = option.group()[: len(option.group()) - len(option.group().lstrip())]
            has_alt = has_alt or option["name"].lower() == "alt"
            place = option.end()
        if has_alt:
            continue
        address = found["address"].replace("\\ ", " ").strip()
        line = text.count("\n", 0, found.start()) + 1
        form = Option(indent, found["end"] or "\n", not found["end"])
        pictures.append(Picture((address,) if address else (), line, found.end(), form))
    return pictures


@dataclass(frozen=True)
class Option:
    """Words as an option of a directive.

    Attributes:
        indent: of the directive's options.
        end: how its lines end.
        last: whether the directive's line ends the document, without an end of its own.
    """

    indent: str
    end: str
    last: bool

    def __call__(self, words: str) -> str:
        line = f"{self.indent}:alt: {words}"  # as it is: docutils takes it for plain text
        return f"{self.end}{line}" if self.last else f"{line}{self.end}"


def _literal_blocks(text: str) -> list[tuple[int, int]]:
    """From where to where code stands: what is indented behind a line that ends with `::`."""
    blocks: list[tuple[int, int]] = []
    end = 0
    for found in LITERAL.finditer(text):
        if found.start() < end or (found["text"] or "").lstrip().startswith(".."):
            continue
        depth = len(found["indent"].expandtabs())
        end = found.end() + 1
        for line in re.compile(r"[^\n]*(?:\n|\Z)").finditer(text, found.end() + 1):
            if not line.group():
                break
            body = line.group().expandtabs()
            if body.strip() and len(body) - len(body.lstrip()) <= depth:
                break
            end = line.end()
        blocks.append((found.start() + len(found["indent"]) + 1, end))
    return blocks
