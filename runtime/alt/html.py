"""Pictures of web pages: `<img>` without `alt`, and what says that it is an image (`role="img"`).

What people wrote is respected: `alt=""` (decoration), `role="presentation"`, `aria-hidden`, and any
other name (`aria-label`). After W3C's decision tree, https://www.w3.org/WAI/tutorials/images/.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from nanocap.runtime.alt.picture import Picture
from nanocap.runtime.alt.tags import CODE, VOID, Tag, read

ADDRESSES = ("src", "data-src", "data-original", "data-lazy-src")
SETS = ("srcset", "data-srcset")
NAMES = ("aria-label", "aria-labelledby")
DECORATION = ("presentation", "none")
IMAGE_FILE = re.compile(r"\.(?:jpe?g|png|webp|gif|avif|heic|tiff?|bmp)(?:[?#].*)?$", re.IGNORECASE)
BACKGROUND = re.compile(r"background(?:-image)?\s*:[^;]*?url\(\s*(['\"]?)(.*?)\1\s*\)", re.DOTALL)
CANDIDATE = re.compile(r"[\s,]*(\S*[^\s,])(?:,+|\s([^,]*)|\Z)")

LONGEST_STYLE = 10_000  # characters that are looked at

OF_CODE = "its attributes are made by code: give it an alt there"
OF_LINK = "it is all that a link holds: say where the link goes"
OF_BUTTON = "it is a button: say what it does"
NO_FILE = "it has no image file to look at: give it an aria-label"


@dataclass
class Link:
    """A link, and what it holds besides pictures without a name."""

    to_image: bool
    named: bool = False


@dataclass
class Element:
    """An element that is open; `hidden` and `link` are those of what it stands in, too."""

    name: str
    hidden: bool = False
    link: Link | None = None
    sources: list[str] = field(default_factory=list)  # of `picture`: addresses so far


def find(text: str, *, xml: bool = False) -> list[Picture]:
    """Pictures of a page that have no alternative text, in their order."""
    return list(_Finder(text, xml).find())


class _Finder:
    def __init__(self, text: str, xml: bool):
        self.text, self.xml = text, xml
        self.open: list[Element] = [Element("")]
        self.count: Counter[str] = Counter()  # of the names of what is open
        self.line, self.counted = 1, 0

    def find(self) -> Iterator[Picture]:
        found: list[tuple[Picture, Link | None]] = []
        for piece in read(self.text, xml=self.xml):
            if not isinstance(piece, Tag):
                if self.text[piece.start : piece.end].strip():
                    self._name_links()
            elif piece.closing:
                self._close(piece.name)
            else:
                picture = self._look(piece)
                if picture is not None:
                    found.append((picture, self.open[-1].link))
                self._open(piece)
        for picture, link in found:
            alone = link is not None and not link.named and not link.to_image
            yield replace(picture, reason=OF_LINK) if alone and not picture.reason else picture

    def _open(self, tag: Tag) -> None:
        value = tag.attributes.get
        if tag.name == "source" and self.open[-1].name == "picture":
            self.open[-1].sources.extend(_from_set(html.unescape(value("srcset", ""))))
        # in HTML the slash ends foreign elements only; who writes it on others means the same
        if tag.name in VOID or tag.empty:
            return
        if tag.name == "a":
            self._close("a")  # links do not nest
        link = self.open[-1].link
        if tag.name == "a" and "href" in tag.attributes:
            link = Link(bool(IMAGE_FILE.search(html.unescape(value("href", "")))))
            link.named = _is_named(tag)
        hidden = self.open[-1].hidden or _is_true(value("aria-hidden"))
        self.open.append(Element(tag.name, hidden, link))
        self.count[tag.name] += 1

    def _close(self, name: str) -> None:
        closed = "" if self.count[name] else name  # an end tag of nothing
        while closed != name:
            closed = self.open.pop().name
            self.count[closed] -= 1

    def _name_links(self) -> None:
        link = self.open[-1].link
        if link is not None:
            link.named = True

    def _look(self, tag: Tag) -> Picture | None:
        """The picture that a start tag is, if it has no alternative text."""
        value = tag.attributes.get
        button = tag.name == "input" and value("type", "").lower() == "image"
        role = value("role", "").strip().lower()
        # parsers take <image> for a slip of the pen
        picture = tag.name == "img" or (tag.name == "image" and not (tag.foreign or self.xml))
        if not picture and not button and role != "img":
            return None
        if self.open[-1].hidden or _is_true(value("aria-hidden")):
            return None
        if role in DECORATION or _is_named(tag):
            return None
        if "alt" in tag.attributes and (picture or button):
            if value("alt", "").strip():
                self._name_links()
            return None
        if tag.coded and "alt" in self.text[tag.start : tag.end].lower():
            return None  # code decides whether there is one
        if tag.name in ("svg", "math", "canvas", "object", "video"):
            return None  # they have names of their own kind: <title>, what they hold
        addresses = self._addresses(tag, picture or button)
        if tag.coded:
            reason = OF_CODE
        elif button:
            reason = OF_BUTTON
        elif not picture and not addresses:
            reason = NO_FILE
        else:
            reason = ""
        attribute = "alt" if picture or button else "aria-label"
        return Picture(addresses, self._line(tag.start), tag.name_end, Attribute(attribute), reason)

    def _addresses(self, tag: Tag, has_source: bool) -> tuple[str, ...]:
        value = {name: html.unescape(text).strip() for name, text in tag.attributes.items()}
        if not has_source:
            style = value.get("style", "")[:LONGEST_STYLE]
            return tuple(address for _, address in BACKGROUND.findall(style) if address)
        found = [value.get(name, "") for name in ADDRESSES[:1]]
        for name in SETS:
            found.extend(_from_set(value.get(name, "")))
        found.extend(value.get(name, "") for name in ADDRESSES[1:])
        if self.open[-1].name == "picture":
            found.extend(self.open[-1].sources)
        return tuple(dict.fromkeys(filter(None, found)))

    def _line(self, place: int) -> int:
        self.line += self.text.count("\n", self.counted, place)
        self.counted = place
        return self.line


@dataclass(frozen=True)
class Attribute:
    """Words as an attribute, for behind the name of a tag: there it hurts no other."""

    name: str

    def __call__(self, words: str) -> str:
        return f' {self.name}="{html.escape(words)}"'


def _from_set(value: str) -> list[str]:
    """Addresses of a `srcset`, the largest first."""
    sized: list[tuple[float, str]] = []
    for code in CODE.findall(value):
        return [code]
    for address, descriptor in CANDIDATE.findall(value):
        size = descriptor.strip().rstrip("wx")
        sized.append((float(size) if size.replace(".", "", 1).isdigit() else 1.0, address))
    return [address.rstrip(",") for _, address in sorted(sized, key=lambda one: -one[0])]


def _is_named(tag: Tag) -> bool:
    return any(tag.attributes.get(name, "").strip() for name in NAMES)


def _is_true(value: str | None) -> bool:
    return value is not None and value.strip().lower() == "true"
