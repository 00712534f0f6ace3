"""A PNG is read for its pixels, whatever text and later frames lie around them."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from nanocap.errors import ImageError
from nanocap.image.decoding.png import PlainPng
from nanocap.image.image import load_image, load_rgb
from nanocap.image.rule import ImageRule

RULE = ImageRule(size=16)


def chunk(name: bytes, data: bytes) -> bytes:
    body = name + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def photo() -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 255, 20), np.linspace(0, 255, 30))
    return Image.fromarray(np.stack([x, y, x], axis=2).astype(np.uint8))


def stored(**options: object) -> bytes:
    file = io.BytesIO()
    photo().save(file, "PNG", **options)
    return file.getvalue()


def with_chunks(before: bytes = b"", after: bytes = b"") -> bytes:
    data = stored()
    pixels, end = data.index(b"IDAT") - 4, data.index(b"IEND") - 4
    return data[:pixels] + before + data[pixels:end] + after + data[end:]


LONG = b"x" * (3 << 20)
TEXTS = {
    "tEXt": chunk(b"tEXt", b"Comment\0" + LONG),
    "zTXt": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(LONG)),
    "iTXt": chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(LONG)),
    "XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(LONG)),
    "many": chunk(b"tEXt", b"Comment\0" + b"x" * 900_000) * 80,
    "EXIF": chunk(b"eXIf", LONG),
    "private": chunk(b"prVt", LONG),
    "damaged": chunk(b"zTXt", b"Comment\0\0junk"),
    "frames": chunk(b"acTL", struct.pack(">2I", 9, 0)) + chunk(b"fcTL", b"\0" * 26),
}


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("text", TEXTS)
def test_text_is_passed_over(text: str, place: str) -> None:
    data = with_chunks(**{place: TEXTS[text]})
    np.testing.assert_array_equal(np.asarray(load_rgb(data)), np.asarray(photo()))


@pytest.mark.parametrize("name", ["Raw profile type exif", "XML:com.adobe.xmp"])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_text_that_holds_the_orientation_is_read(name: str, compressed: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    raw = exif.tobytes()
    value = f"\nexif\n{len(raw):8}\n{raw.hex()}\n"
    if name.startswith("XML"):
        value = '<x tiff:Orientation="6"/>'
    info = PngInfo()
    info.add_itxt(name, value, zip=compressed)
    turned = photo().transpose(Image.Transpose.ROTATE_270)
    np.testing.assert_array_equal(np.asarray(load_rgb(stored(pnginfo=info))), np.asarray(turned))


def test_exif_after_the_pixels_is_read() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    data = with_chunks(after=chunk(b"eXIf", exif.tobytes()[6:]))
    turned = photo().transpose(Image.Transpose.ROTATE_180)
    np.testing.assert_array_equal(np.asarray(load_rgb(data)), np.asarray(turned))


def test_only_what_pixels_need_is_left() -> None:
    file = PlainPng(io.BytesIO(with_chunks(TEXTS["tEXt"], TEXTS["private"])))
    assert file.read() == stored()
    assert file.seek(8) == 8
    assert file.read(8) == stored()[8:16]


def test_pixels_that_are_cut_off_are_an_error() -> None:
    data = with_chunks(TEXTS["tEXt"])
    cut = data[: data.index(b"IDAT") + 30]
    with pytest.raises(ImageError, match="damaged or cut off"):
        load_image(cut, RULE)


def test_a_million_chunks_are_no_photo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nanocap.image.decoding.png.MAX_CHUNKS", 100)
    with pytest.raises(ImageError, match="more than 100 chunks"):
        load_image(with_chunks(chunk(b"tEXt", b"a\0b") * 100), RULE)
