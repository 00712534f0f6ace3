"""A document: its pictures without alternative text, and the same document with words for them."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nanocap.errors import DataError
from nanocap.files.whole_file import whole_file
from nanocap.runtime.alt import html, markdown, restructuredtext
from nanocap.runtime.alt.addresses import Images
from nanocap.runtime.alt.picture import Picture

Find = Callable[[str], list[Picture]]

# Who finds the pictures of a kind of file. Templates are pages with code in them.
PAGES = "html htm php liquid njk twig jinja jinja2 j2 erb ejs hbs vue svelte astro"
FORMATS: dict[str, Find] = {
    **{f".{suffix}": html.find for suffix in PAGES.split()},
    ".xhtml": partial(html.find, xml=True),
    ".md": markdown.find,
    ".markdown": markdown.find,
    ".mdx": markdown.find,
    ".rst": restructuredtext.find,
}
LARGEST = 64 << 20  # bytes of a document
MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]+)", re.IGNORECASE)
ENCODINGS = re.compile(  # that pages have; Python knows many others, some of them slow
    r"utf-?8|us-ascii|ascii|iso-8859-\d+|latin-?1|windows-\d+|cp\d+|koi8-[ru]|gb18030|gbk|gb2312|big5"
    r"|shift[-_]jis|euc-(?:jp|kr)|macintosh",
    re.IGNORECASE,
)
DECLARED = re.compile(rb"^<\?xml[^>]{0,200}encoding\s*=\s*[\"']([A-Za-z0-9_:.-]+)")


@dataclass(frozen=True)
class Document:
    """A document as it was read.

    Attributes:
        path: of its file.
        data: its bytes.
        pictures: those without alternative text, in their order.
    """

    path: Path
    data: bytes
    pictures: tuple[Picture, ...]
    _text: str
    _encoding: str
    _words_encoding: str
    _mark: bytes

    @classmethod
    def read(cls, path: Path) -> Document:
        """Open a document.

        Raises:
            DataError: it cannot be read or is too large.
        """
        return cls.of(path, read_bytes(path, LARGEST))

    @classmethod
    def of(cls, path: Path, data: bytes) -> Document:
        """A document of these bytes; its kind is that of `path`."""
        find = FORMATS[path.suffix.lower()]
        mark = next((mark for mark in MARKS if data.startswith(mark)), b"")
        text, encoding, of_words = _decode(data[len(mark) :], MARKS.get(mark))
        return cls(path, data, tuple(find(text)), text, encoding, of_words, mark)

    def image(self, picture: Picture, root: Path) -> Path | bytes:
        """The image of a picture.

        Args:
            root: where addresses that begin with a slash begin; nothing outside is read.

        Raises:
            ImageError: it is not there, or not to be read.
        """
        return Images(root).find(picture.addresses, self.path)

    def with_words(self, words: Mapping[int, str]) -> bytes:
        """Its bytes with words for some of its pictures, by their place in `pictures`."""
        pieces, place = [self._mark], 0
        for number in sorted(words, key=lambda number: self.pictures[number].place):
            picture = self.pictures[number]
            pieces.append(self._encode(self._text[place : picture.place]))
            # characters that the encoding lacks become references, which pages know
            form = picture.form(words[number])
            pieces.append(form.encode(self._words_encoding, "xmlcharrefreplace"))
            place = picture.place
        return b"".join([*pieces, self._encode(self._text[place:])])

    def write(self, data: bytes) -> None:
        """Put `data` in the place of the file, whole or not at all; its access rights stay.

        Raises:
            DataError: somebody has changed the file since it was read, or it cannot be written.
        """
        write_bytes(self.path, self.data, data)

    def _encode(self, text: str) -> bytes:
        return text.encode(self._encoding, "surrogateescape")


def read_bytes(path: Path, largest: int) -> bytes:
    """A file of at most so many bytes. Raises DataError."""
    try:
        with open(path, "rb") as file:
            data = file.read(largest + 1)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if len(data) > largest:
        raise DataError(f"{path}: larger than {largest >> 20} MB, which no document is")
    return data


def write_bytes(path: Path, old: bytes, new: bytes) -> None:
    """Put `new` in the place of a file that held `old`; see `Document.write`."""
    target = Path(os.path.realpath(path))
    try:
        if target.read_bytes() != old:
            raise DataError(f"{path}: it was changed meanwhile; run nanocap alt again")
        mode = target.stat().st_mode
        with whole_file(target) as partial_file:
            partial_file.write_bytes(new)
            partial_file.chmod(mode & 0o7777)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from error


def _decode(data: bytes, marked: str | None) -> tuple[str, str, str]:
    """Text, the encoding that gives its bytes back whatever is in them, and one for words in it."""
    declared = DECLARED.match(data) or CHARSET.search(data[:2048])
    named = declared[1].decode("ascii") if declared is not None else ""
    for encoding in (marked or named, "utf-8"):
        if encoding != marked and not ENCODINGS.fullmatch(encoding):
            continue
        try:
            text = data.decode(encoding, "surrogateescape")
            if text.encode(encoding, "surrogateescape") == data:
                return text, encoding, encoding
        except (LookupError, UnicodeError):
            continue
    # a character a byte: tags are ASCII, and words are written as ASCII with references
    return data.decode("latin-1"), "latin-1", "ascii"
