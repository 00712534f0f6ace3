"""A book: an EPUB, whose pages and images stand in one archive.

https://www.w3.org/TR/epub-33/#sec-ocf
"""

from __future__ import annotations

import io
import posixpath
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from nanocap.errors import DataError, ImageError
from nanocap.runtime.alt.addresses import data_of, first_of, path_of
from nanocap.runtime.alt.document import LARGEST, Document, read_bytes, write_bytes
from nanocap.runtime.alt.picture import Picture

PAGES = (".xhtml", ".html", ".htm")
ENCRYPTED = "META-INF/encryption.xml"
MOST = 20_000  # files in a book
LARGEST_BOOK = 1 << 30  # bytes, unpacked and not


@dataclass(frozen=True)
class Book:
    """An EPUB as it was read.

    Attributes:
        path: of its file.
        data: its bytes.
        pictures: those without alternative text, in the order of the pages in the archive.
    """

    path: Path
    data: bytes
    pictures: tuple[Picture, ...]
    _pages: tuple[tuple[str, Document], ...]

    @classmethod
    def read(cls, path: Path) -> Book:
        """Open a book.

        Raises:
            DataError: it cannot be read, is damaged, encrypted, or larger than any book.
        """
        data = read_bytes(path, LARGEST_BOOK)
        pages: list[tuple[str, Document]] = []
        with _archive(path, data) as archive:
            infos = archive.infolist()
            if len(infos) > MOST or sum(info.file_size for info in infos) > LARGEST_BOOK:
                raise DataError(f"{path}: larger than any book")
            if any(info.filename == ENCRYPTED or info.flag_bits & 1 for info in infos):
                raise DataError(f"{path}: parts of it are encrypted, so it cannot be changed")
            for info in infos:
                if info.filename.lower().endswith(PAGES):
                    page = Document.of(Path(info.filename), _member(archive, info, path))
                    pages.append((info.filename, page))
        pictures = tuple(
            replace(picture, page=name) for name, page in pages for picture in page.pictures
        )
        return cls(path, data, pictures, tuple(pages))

    def image(self, picture: Picture, root: Path) -> bytes:
        """The image of a picture, from the archive; `root` is for documents outside of one.

        Raises:
            ImageError: it is not there.
        """
        return first_of(picture.addresses, lambda address: self._one(address, picture.page))

    def _one(self, address: str, page: str) -> bytes:
        data = data_of(address)
        if data is not None:
            return data
        written = path_of(address)
        begin = "" if written.startswith("/") else posixpath.dirname(page)
        name = posixpath.normpath(posixpath.join(begin, written.lstrip("/")))
        with _archive(self.path, self.data) as archive:
            try:
                return _member(archive, archive.getinfo(name), self.path)
            except KeyError:
                raise ImageError("there is no such file in the book") from None
            except DataError as error:
                raise ImageError(error) from error

    def with_words(self, words: Mapping[int, str]) -> bytes:
        """Its bytes with words for some of its pictures, by their place in `pictures`."""
        changed: dict[str, bytes] = {}
        number = 0
        for name, page in self._pages:
            here = {place: words[number + place] for place in range(len(page.pictures))
                    if number + place in words}  # fmt: skip
            if here:
                changed[name] = page.with_words(here)
            number += len(page.pictures)
        written = io.BytesIO()
        with _archive(self.path, self.data) as archive, zipfile.ZipFile(written, "w") as target:
            target.comment = archive.comment
            for info in archive.infolist():  # the order matters: `mimetype` is the first
                data = changed.get(info.filename)
                target.writestr(info, _member(archive, info, self.path) if data is None else data)
        return written.getvalue()

    def write(self, data: bytes) -> None:
        """Put `data` in the place of the file; see `Document.write`."""
        write_bytes(self.path, self.data, data)


@contextmanager
def _archive(path: Path, data: bytes) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            yield archive
    except (zipfile.BadZipFile, NotImplementedError, EOFError, zlib.error, ValueError) as error:
        raise DataError(f"{path}: a damaged book ({error}); get it again") from error


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> bytes:
    """The bytes of a file of the archive, no more of them than it says."""
    if info.file_size > LARGEST:
        raise DataError(f"{path}: {info.filename} is larger than {LARGEST >> 20} MB")
    with archive.open(info) as file:
        return file.read(info.file_size + 1)
