"""Books: pages and images in one archive, of which only the pages' words change."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from nanocap.errors import DataError, ImageError
from nanocap.runtime.alt import book as module
from nanocap.runtime.alt.book import Book

PAGE = """<?xml version="1.0" encoding="utf-8"?>\r
<html xmlns="http://www.w3.org/1999/xhtml"><head><title/></head><body>\r
<img src="../images/a%20b.jpg"/><img src="c.jpg" alt="cat"/><img src="gone.jpg"/></body></html>"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "book.epub"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", "application/epub+zip", zipfile.ZIP_STORED)
        archive.writestr("OEBPS/text/1.xhtml", PAGE)
        archive.writestr("OEBPS/text/2.xhtml", "<p/>")
        archive.writestr("OEBPS/images/a b.jpg", b"photo" * 100)
        archive.comment = b"mine"
    return path


def test_only_the_words_change(path: Path) -> None:
    book = Book.read(path)
    assert [(one.name, one.page, one.line) for one in book.pictures] == [
        ("../images/a%20b.jpg", "OEBPS/text/1.xhtml", 3),
        ("gone.jpg", "OEBPS/text/1.xhtml", 3),
    ]
    book.write(book.with_words({0: "A cat."}))
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist()[0] == "mimetype"
        assert archive.infolist()[0].compress_type == zipfile.ZIP_STORED
        assert archive.comment == b"mine"
        assert archive.read("OEBPS/text/1.xhtml").decode() == PAGE.replace(
            '<img src="../', '<img alt="A cat." src="../'
        )
        assert archive.read("OEBPS/images/a b.jpg") == b"photo" * 100
    assert path.read_bytes()[30:38] == b"mimetype"  # where readers of books look for it
    assert [one.name for one in Book.read(path).pictures] == ["gone.jpg"]


def test_images_are_in_the_archive(path: Path, tmp_path: Path) -> None:
    book = Book.read(path)
    assert book.image(book.pictures[0], tmp_path) == b"photo" * 100
    with pytest.raises(ImageError, match="there is no such file in the book"):
        book.image(book.pictures[1], tmp_path)


def test_books_that_are_not_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = path.read_bytes()
    for cut in (0, 10, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError, match="a damaged book"):
            Book.read(path)
    place = whole.index(b"OEBPS/text/1.xhtml") + 40
    path.write_bytes(whole[:place] + b"\xff" * 20 + whole[place + 20 :])
    with pytest.raises(DataError, match="a damaged book"):
        Book.read(path)
    path.write_bytes(whole)
    monkeypatch.setattr(module, "LARGEST", 100)
    with pytest.raises(DataError, match="larger than"):
        Book.read(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("META-INF/encryption.xml", "<x/>")
    with pytest.raises(DataError, match="encrypted"):
        Book.read(path)
