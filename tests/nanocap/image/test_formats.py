"""Which files are photos, in a folder and by their bytes."""

from __future__ import annotations

import io
import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nanocap.errors import ImageError
from nanocap.image.formats import FORMATS, SUFFIXES, open_image, photos_in
from nanocap.image.image import load_image, load_rgb
from nanocap.image.rule import ImageRule

RULE = ImageRule(size=16)


def listed(folder: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """Paths of photos, and path and reason of what is refused, both below `folder`."""
    refused: list[OSError] = []
    found = [os.path.relpath(path, folder) for path in photos_in(str(folder), refused.append)]
    return found, [(os.path.relpath(e.filename, folder), e.strerror or "") for e in refused]


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_every_suffix_of_a_format_is_looked_for() -> None:
    Image.init()
    known = {suffix for suffix, kind in Image.EXTENSION.items() if kind in {*FORMATS, "MPO", "DIB"}}
    assert known <= SUFFIXES
    assert {".hif", ".heics", ".heifs", ".avifs", ".pfm"} <= SUFFIXES


def test_links_are_followed_once(tmp_path: Path) -> None:
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "folder"
    touch(elsewhere / "far.jpg", folder / "b" / "near.jpg", folder / "z.HIF")
    (folder / "a-link").symlink_to(elsewhere)
    (folder / "again").symlink_to(elsewhere)
    (folder / "b" / "loop").symlink_to(folder)
    (folder / "b-link").symlink_to(folder / "b")
    (elsewhere / "back").symlink_to(folder / "b")
    (folder / ".hidden").symlink_to(elsewhere)
    assert listed(folder) == (["z.HIF", "b/near.jpg", "a-link/far.jpg"], [])
    (tmp_path / "root").symlink_to(folder)
    assert listed(tmp_path / "root")[0] == ["z.HIF", "b/near.jpg", "a-link/far.jpg"]


def test_links_to_nowhere_and_round_in_a_circle_fail_by_their_names(tmp_path: Path) -> None:
    touch(tmp_path / "a.jpg")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nothing.jpg")
    (tmp_path / "self.jpg").symlink_to(tmp_path / "self.jpg")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    assert listed(tmp_path) == (["a.jpg", "gone.jpg", "self.jpg"], [])
    with pytest.raises(ImageError, match=r"gone\.jpg: there is no such file"):
        load_image(tmp_path / "gone.jpg")
    with pytest.raises(ImageError, match=r"self\.jpg: cannot be opened"):
        load_image(tmp_path / "self.jpg")


@pytest.mark.skipif(os.name != "posix", reason="no named pipes there")
def test_what_is_no_regular_file_is_named_and_not_opened(tmp_path: Path) -> None:
    touch(tmp_path / "a.jpg", tmp_path / "notes.txt")
    os.mkfifo(tmp_path / "pipe.jpg")
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "link.png").symlink_to(tmp_path / "pipe.jpg")
    (tmp_path / "null.gif").symlink_to("/dev/null")
    found, refused = listed(tmp_path)
    assert found == ["a.jpg"]
    assert refused == [
        ("link.png", "a named pipe, not a regular file"),
        ("null.gif", "a device, not a regular file"),
        ("pipe.jpg", "a named pipe, not a regular file"),
    ]


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may list all")
def test_a_folder_that_cannot_be_listed(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "a.jpg", tmp_path / "b.jpg")
    (tmp_path / "a").chmod(0)
    assert listed(tmp_path) == (["b.jpg"], [("a", "Permission denied")])


def encoded(kind: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 30, 40)).save(file, kind)
    return file.getvalue()


def branded(data: bytes, major: bytes, *others: bytes) -> bytes:
    size = int.from_bytes(data[:4], "big")
    box = b"ftyp" + major + b"\0\0\0\0" + b"".join(others)
    # Places in the file are counted from its start, so that the box must not grow or shrink.
    box = box.ljust(size - 4, b"\0")
    assert len(box) == size - 4
    return data[:4] + box + data[size:]


@pytest.mark.parametrize(
    "brands",
    [
        (b"avif", b"mif1", b"miaf"),
        (b"mif1", b"avif", b"miaf"),
        (b"mif1", b"miaf", b"avif"),
        (b"miaf", b"avif"),
        (b"abcd", b"avif"),
    ],
)
def test_avif_by_any_of_its_brands(brands: tuple[bytes, ...]) -> None:
    Image.init()
    if "AVIF" not in Image.OPEN:
        pytest.skip("this Pillow reads no AVIF")
    data = encoded("AVIF")
    expected = np.asarray(load_rgb(data))
    found = load_rgb(branded(data, *brands))
    np.testing.assert_array_equal(np.asarray(found), expected)
    with open_image(io.BytesIO(branded(data, *brands)), "x") as image:
        assert image.format == "AVIF"


@pytest.mark.parametrize("brands", [(b"heic",), (b"mif1", b"heic"), (b"msf1", b"hevc"), (b"mif1",)])
def test_heic_by_any_of_its_brands(brands: tuple[bytes, ...]) -> None:
    head = b"ftyp" + brands[0] + b"\0\0\0\0" + b"".join(brands[1:])
    data = struct.pack(">I", 4 + len(head)) + head + b"\0" * 40
    with pytest.raises(ImageError, match="HEIC"):
        load_image(data)


def ftyp(brand: bytes) -> bytes:
    return b"\0\0\0\x14ftyp" + brand + b"\0\0\0\0isom" + b"\0" * 30


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"\xff\x0a\xfa\x1f\x41", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (ftyp(b"crx "), "a raw photo"),
        (ftyp(b"isom"), "a video"),
        (ftyp(b"qt  "), "a video"),
        (b"\x1aE\xdf\xa3" + b"\0" * 20, "a video"),
        (b"RIFF\0\0\0\0AVI LIST", "a video"),
        (b"II*\0\x10\0\0\0CR\2\0" + b"\0" * 20, "a raw photo"),
        (b"FUJIFILMCCD-RAW 0201", "a raw photo"),
        (b"IIU\0\x18\0\0\0" + b"\0" * 30, "a raw photo"),
        (b"%PDF-1.7\n", "PDF"),
        (b"8BPS\0\1", "Photoshop"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
        (b'<?xml version="1.0"?>\n<!-- made by hand -->\n<svg xmlns="x">', "SVG"),
        (b"<svg width='9'>", "SVG"),
        (b"\n<!DOCTYPE html>\n<html><body><svg>", "a web page"),
        (b"PK\3\4" + b"\0" * 30, "an archive"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\0" * 128 + b"DICM", "DICOM"),
        (b"words of a letter", "not an image, despite its name"),
    ],
)
def test_what_people_take_for_a_photo_is_named(data: bytes, named: str) -> None:
    with pytest.raises(ImageError, match=named) as caught:
        load_image(data)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 160


def test_the_preview_in_a_raw_photo_is_not_the_photo() -> None:
    """DNG, NEF and ARW are TIFF whose first image is a small preview."""
    photo = Image.new("RGB", (16, 12), (200, 30, 40))
    for tags in ({50706: b"\1\4\0\0"}, {254: 1, 330: 8}):
        file = io.BytesIO()
        photo.save(file, "TIFF", tiffinfo=tags)
        with pytest.raises(ImageError, match="a raw photo of a camera"):
            load_image(file.getvalue())
    file = io.BytesIO()
    photo.save(file, "TIFF", tiffinfo={254: 0})
    assert load_image(file.getvalue(), RULE)[0, 0].tolist() == [200, 30, 40]


def test_the_largest_image_of_an_icon() -> None:
    for kind in ("png", "bmp"):
        file = io.BytesIO()
        icon = Image.new("RGB", (64, 64), (200, 30, 40))
        icon.save(file, "ICO", sizes=[(16, 16), (64, 64)], bitmap_format=kind)
        assert load_rgb(file.getvalue()).size == (64, 64)
        assert load_image(file.getvalue(), RULE)[3, 3].tolist() == [200, 30, 40]
    file = io.BytesIO()
    Image.new("RGB", (500, 400)).save(file, "PNG")
    entry = struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, len(file.getvalue()), 22)
    large = struct.pack("<HHH", 0, 1, 1) + entry + file.getvalue()
    assert load_rgb(large).size == (500, 400)
    with pytest.raises(ImageError, match="500x400"):
        load_image(large, max_pixels=199_999)
    bitmap = struct.pack("<Iii", 40, 13_000, 26_000) + b"\0" * 60
    with pytest.raises(ImageError, match="an icon of 13000x13000"):
        load_image(large[:22] + bitmap)
