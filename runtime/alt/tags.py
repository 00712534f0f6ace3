"""The tags of a web page by their place in it.

As the HTML standard's tokenizer has them (https://html.spec.whatwg.org/#tokenization), with what
the tree's construction says to it: what scripts, styles and titles hold is no markup. Parsers that
are to be had give a tree but not the place of a tag to the byte, or change the text on the way.

Code of template languages, from its opening to its closing mark, is skipped wherever it stands.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

RAW = frozenset(
    "script style textarea title xmp iframe noembed noframes plaintext".split()
)  # what they hold is text
FOREIGN = frozenset(("svg", "math"))  # other rules hold inside
HTML_INSIDE = frozenset(  # foreign elements inside of which the rules of HTML hold again
    "foreignobject desc title annotation-xml mi mo mn ms mtext".split()
)
BREAKS_OUT = frozenset(  # start tags that end foreign content
    """b big blockquote body br center code dd div dl dt em embed h1 h2 h3 h4 h5 h6 head hr i img li
    listing menu meta nobr ol p pre ruby s small span strong strike sub sup table tt u ul
    var""".split()
)
VOID = frozenset(
    "area base br col embed hr img input link meta param source track wbr".split()
)  # elements without an end tag

SPACE = "\t\n\f\r "
CODE = re.compile(  # from an opening mark to its closing one, with no other of its kind between
    r"<\?(?:php\b|=).*?(?:\?>|\Z)|<%(?:(?!<%).)*?%>"
    r"|\{\{(?:(?!\{\{).)*?\}\}|\{%(?:(?!\{%).)*?%\}|\{#(?:(?!\{#).)*?#\}",
    re.DOTALL,
)
_NAME = re.compile(rf"[^{SPACE}/>]*")
_ATTRIBUTE = re.compile(rf"=?[^{SPACE}/>=]*")
_GAP = re.compile(rf"[{SPACE}/]*")
_SPACES = re.compile(rf"[{SPACE}]*")
_UNQUOTED = re.compile(rf"[^{SPACE}>]*")
_COMMENT_END = re.compile(r"--!?>")
_SCRIPT = re.compile(rf"<!--|-->|<(/?)script(?=[{SPACE}/>])", re.IGNORECASE)
_MARK = re.compile("[<{]")
_LETTER = re.compile(r"[A-Za-z]")


@dataclass(frozen=True)
class Tag:
    """A start tag or an end tag.

    Attributes:
        name: in lower case.
        start, name_end, end: where it begins, where its name ends, where it ends.
        closing: whether it is an end tag.
        empty: whether it ends with a slash.
        attributes: the text of each, as it is written; of two of one name, the first.
        coded: whether code of a template language stands among its attributes.
        foreign: whether it stands in a drawing (SVG) or a formula.
    """

    name: str
    start: int
    name_end: int
    end: int
    closing: bool = False
    empty: bool = False
    attributes: dict[str, str] = field(default_factory=dict)
    coded: bool = False
    foreign: bool = False


@dataclass(frozen=True)
class Text:
    """What stands between two tags: from `start` to `end`."""

    start: int
    end: int


def read(text: str, *, xml: bool = False) -> Iterator[Tag | Text]:
    """The tags of a page and what stands between them, in their order.

    Comments, declarations, code and what scripts hold are neither.

    Args:
        xml: by the rules of XML, where every element may hold markup.
    """
    return _Reader(text, xml).read()


class _Reader:
    def __init__(self, text: str, xml: bool):
        self.text, self.xml = text, xml
        # where code begins, its end; looked for once, since an opening mark may have no end
        self.code = {found.start(): found.end() for found in CODE.finditer(text)}
        self.starts = list(self.code)
        self.foreign: list[str] = []  # names of the open elements from the outermost foreign one
        self.count: Counter[str] = Counter()  # of these names

    def read(self) -> Iterator[Tag | Text]:
        text, place, began = self.text, 0, 0
        while place < len(text):
            skipped = self.code.get(place)
            if skipped is None and text[place] != "<":
                place = self._next(place + 1)
                continue
            tag: Tag | None = None
            if skipped is not None:
                after = skipped
            else:
                tag, after = self._markup(place)
            if after == place:  # a "<" that is text
                place = self._next(place + 1)
                continue
            if began < place:
                yield Text(began, place)
            if tag is not None:
                yield tag
                after = self._behind(tag)
            place = began = after
        if began < len(text):
            yield Text(began, len(text))

    def _next(self, place: int) -> int:
        """Where markup or code may begin next."""
        found = _MARK.search(self.text, place)
        return len(self.text) if found is None else found.start()

    def _markup(self, place: int) -> tuple[Tag | None, int]:
        """The tag at a "<", if it is one, and where the markup ends; there, if it is text."""
        text = self.text
        after = text[place + 1 : place + 2]
        if _LETTER.match(after):
            return self._tag(place, place + 1)
        if after == "/":
            if _LETTER.match(text, place + 2):
                return self._tag(place, place + 2)
            if text[place + 2 : place + 3] == "":
                return None, place
            return None, self._after(">", place + 2)
        if after == "?":
            return None, self._after("?>" if self.xml else ">", place + 2)
        if after != "!":
            return None, place
        if text.startswith("--", place + 2):
            for short in (">", "->"):  # comments that end at once
                if text.startswith(short, place + 4):
                    return None, place + 4 + len(short)
            end = _COMMENT_END.search(text, place + 4)
            return None, len(text) if end is None else end.end()
        if text.startswith("[CDATA[", place + 2) and (self.xml or self._is_foreign()):
            return None, self._after("]]>", place + 9)
        return None, self._after(">", place + 2)

    def _after(self, mark: str, place: int) -> int:
        found = self.text.find(mark, place)
        return len(self.text) if found < 0 else found + len(mark)

    def _tag(self, start: int, place: int) -> tuple[Tag | None, int]:
        """A tag whose name begins at `place`; one that does not end is none, by the standard."""
        text = self.text
        name_end = self._end(_NAME, place)
        name = text[place:name_end].lower()
        attributes: dict[str, str] = {}
        coded, place = False, name_end
        while True:
            place = self._end(_GAP, place)
            if place >= len(text):
                return None, len(text)
            if place in self.code:
                coded, place = True, self.code[place]
                continue
            if text[place] == ">":
                return (
                    Tag(
                        name,
                        start,
                        name_end,
                        place + 1,
                        text[start + 1] == "/",
                        text[place - 1] == "/",
                        attributes,
                        coded,
                        self._is_foreign(),
                    ),
                    place + 1,
                )
            behind = self._end(_ATTRIBUTE, place)
            key = text[place:behind].lower()
            equals = self._end(_SPACES, behind)
            value, place = "", behind
            if text[equals : equals + 1] == "=":
                begin = self._end(_SPACES, equals + 1)
                quote = text[begin : begin + 1]
                if quote and quote in "\"'":
                    end = self._closing(quote, begin + 1)
                    if end < 0:
                        return None, len(text)
                    value, place = text[begin + 1 : end], end + 1
                else:
                    place = self._end(_UNQUOTED, begin)
                    for at in range(begin, place):
                        if at in self.code:
                            place = self.code[at]
                            break
                    value = text[begin:place]
            attributes.setdefault(key, value)

    def _end(self, pattern: re.Pattern[str], place: int) -> int:
        found = pattern.match(self.text, place)
        assert found is not None  # all of these match nothing, too
        return found.end()

    def _closing(self, quote: str, place: int) -> int:
        """Where a quoted value ends; code in it may hold quotes. -1: nowhere."""
        while True:
            end = self.text.find(quote, place)
            here = bisect_left(self.starts, place)
            if end < 0 or here == len(self.starts) or self.starts[here] > end:
                return end
            place = self.code[self.starts[here]]

    def _behind(self, tag: Tag) -> int:
        """Where what follows a tag begins to be markup."""
        if self.xml:
            return tag.end
        was_foreign = self._is_foreign()
        self._follow(tag, was_foreign)
        if tag.closing or tag.name not in RAW or was_foreign:
            return tag.end
        if tag.name == "plaintext":
            return len(self.text)
        if tag.name == "script":
            return self._script_end(tag.end)
        end = re.compile(rf"</{tag.name}(?=[{SPACE}/>])", re.IGNORECASE).search(self.text, tag.end)
        return len(self.text) if end is None else end.start()

    def _script_end(self, place: int) -> int:
        """A script may hold a comment, and that a script whose end does not end the outer one."""
        escaped = doubly = False
        while True:
            found = _SCRIPT.search(self.text, place)
            if found is None:
                return len(self.text)
            mark, place = found.group(), found.end()
            if mark == "<!--":
                escaped = True
                place = found.start() + 2  # "<!-->" ends at once
            elif mark == "-->":
                escaped = doubly = False
            elif found.group(1) and not doubly:
                return found.start()
            elif found.group(1):
                doubly = False
            elif escaped:
                doubly = True

    def _is_foreign(self) -> bool:
        return bool(self.foreign) and self.foreign[-1] not in HTML_INSIDE

    def _follow(self, tag: Tag, was_foreign: bool) -> None:
        """Keep account of which foreign elements are open."""
        if tag.closing:
            if self.count[tag.name]:
                while self._pop() != tag.name:
                    pass
            return
        if was_foreign and tag.name in BREAKS_OUT:
            while self._is_foreign():
                self._pop()
            return
        if (was_foreign or tag.name in FOREIGN) and not tag.empty:
            self.foreign.append(tag.name)
            self.count[tag.name] += 1

    def _pop(self) -> str:
        name = self.foreign.pop()
        self.count[name] -= 1
        return name
