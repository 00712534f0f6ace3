"""What decoding may take is known before it begins, and what would take more is refused."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from nanocap.errors import ImageError
from nanocap.image.decoding import jpeg, limits
from nanocap.image.formats import open_image
from nanocap.image.image import load_image, load_rgb
from nanocap.image.rule import ImageRule
from nanocap.measure.bench.memory import child_peak_bytes

RULE = ImageRule(size=16)
LOAD = """
import sys
from nanocap.image.image import load_image
load_image(sys.argv[1], max_pixels=int(sys.argv[2]))
"""
SIDE = 2400  # 5.8 megapixels


def refused(source: Any, **options: Any) -> str:
    with pytest.raises(ImageError) as caught:
        load_image(source, RULE, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def photo(side: int = 64, mode: str = "RGB") -> Image.Image:
    small = np.random.default_rng(0).integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC).convert(mode)


def with_scans(data: bytes, count: int) -> bytes:
    """A progressive JPEG with its last scan repeated."""
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * count + data[-2:]


def test_scans_are_counted_without_decoding() -> None:
    progressive = encoded(photo(), "JPEG", progressive=True, quality=95)
    scans = jpeg.read_scans(io.BytesIO(progressive))
    assert scans is not None
    assert scans.several
    assert jpeg.count_scans(io.BytesIO(progressive), scans.first, 1000) == 10
    more = io.BytesIO(with_scans(progressive, 300))
    assert jpeg.count_scans(more, scans.first, 1000) == 310
    assert jpeg.count_scans(more, scans.first, 50) == 50
    plain = jpeg.read_scans(io.BytesIO(encoded(photo(), "JPEG")))
    assert plain is not None
    assert not plain.several
    assert jpeg.read_scans(io.BytesIO(progressive[:100])) is None


@pytest.mark.parametrize(("subsampling", "samples"), [(0, 3), (1, 2), (2, 1.5)])
def test_coefficients_of_a_progressive_jpeg(subsampling: int, samples: float) -> None:
    data = encoded(photo(128), "JPEG", progressive=True, subsampling=subsampling)
    scans = jpeg.read_scans(io.BytesIO(data))
    assert scans is not None
    assert scans.coefficients == 128 * 128 * samples * 2


def test_many_scans_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    progressive = encoded(photo(), "JPEG", progressive=True)
    assert load_image(with_scans(progressive, 90), RULE).shape == (16, 16, 3)
    monkeypatch.setattr(limits, "MAX_PIXELS", 50_000)  # 20 passes over 50,000 are 100 over 10,000
    message = refused(with_scans(progressive, 91), max_pixels=50_000)
    assert "more than 100 scans" in message
    assert "as a plain JPEG" in message
    load_image(with_scans(progressive, 91), RULE, max_pixels=100_000)


def test_memory_is_refused_by_what_a_format_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is 4 bytes a pixel: a decoder that needs more takes smaller images."""
    monkeypatch.setattr(limits, "ALLOWANCE", 40_000)
    image = photo(256)
    dear = {
        "JPEG": {"progressive": True},
        "WEBP": {"lossless": True},
        "JPEG2000": {},
        "TIFF": {"compression": "tiff_adobe_deflate", "tiffinfo": {278: 256}},
    }
    for kind, options in dear.items():
        data = encoded(image, kind, **options)
        message = refused(data, max_pixels=256 * 256)
        assert "MB to decode" in message
        assert "--max-pixels" in message
        assert load_image(data, RULE, max_pixels=20 * 256 * 256).shape == (16, 16, 3)
    for kind in ("JPEG", "PNG", "BMP", "GIF", "PPM"):
        load_image(encoded(image, kind), RULE, max_pixels=256 * 256)
    tiles = encoded(image, "JPEG2000", tile_size=(64, 64))
    load_image(tiles, RULE, max_pixels=2 * 256 * 256)


def test_lines_of_a_hundred_megapixels() -> None:
    """They decode to 100 MB, and would need gigabytes to be resized."""
    header = struct.pack(">5B", 8, 0, 0, 0, 0)
    for size in ((1, 100_000_000), (100_000_000, 1)):
        body = b"IHDR" + struct.pack(">II", *size) + header
        chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
        empty = b"IDAT" + zlib.compress(b"")
        data = struct.pack(">I", len(empty) - 4) + empty + struct.pack(">I", zlib.crc32(empty))
        assert "MB to decode" in refused(b"\x89PNG\r\n\x1a\n" + chunk + data)
    long = np.zeros((200_000, 1), np.uint8)
    long[100_000:] = 200
    column = load_image(long, RULE)[:, 0, 0].tolist()
    assert column[:7] == [0] * 7
    assert column[-7:] == [200] * 7


def little_tiff(*tags: tuple[int, int, int, int]) -> bytes:
    """A TIFF of a directory alone: of each tag its number, type, count and value."""
    table = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + table + b"\0" * 100


GRAY_TIFF = ((256, 4, 1, 16), (257, 4, 1, 16), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1))


def test_a_tile_or_strip_larger_than_its_image() -> None:
    side = 40_000
    tiles = ((322, 4, 1, side), (323, 4, 1, side), (324, 4, 1, 200), (325, 4, 1, 9))
    assert "16x16 of this kind takes 1600 MB" in refused(little_tiff(*GRAY_TIFF, *tiles))
    strips = ((273, 4, 1, 200), (277, 3, 1, 1), (278, 4, 1, 2**32 - 1), (279, 4, 1, 9))
    assert "cannot be decoded" in refused(little_tiff(*GRAY_TIFF, *strips)), "its own rows at most"


def test_the_tile_of_a_jpeg_2000_is_read_from_its_code_stream() -> None:
    whole = io.BytesIO(encoded(photo(256), "JPEG2000"))
    tiled = io.BytesIO(encoded(photo(256), "JPEG2000", tile_size=(64, 32)))
    assert jpeg.tile_bytes(whole) == 256 * 256 * 3 * 5
    assert jpeg.tile_bytes(tiled) == 64 * 32 * 3 * 5
    lying = whole.getvalue()
    place = lying.index(b"ihdr") + 4
    lying = lying[:place] + struct.pack(">II", 8, 8) + lying[place + 8 :]
    assert jpeg.tile_bytes(io.BytesIO(lying)) == 256 * 256 * 3 * 5
    assert jpeg.tile_bytes(io.BytesIO(b"\0" * 100)) is None


@pytest.mark.parametrize(
    "kind", [b"P6 3000 2000 65535\n", b"P6 3000 2000 254\n", b"P3 3000 2000 9\n"]
)
def test_decoders_written_in_python_take_small_images(kind: bytes) -> None:
    assert "takes too long to decode; convert it to PNG" in refused(kind + b"\0" * 50)
    white = b"9 9 9 " * 2 if kind.startswith(b"P3") else b"\xff" * 12
    assert (np.asarray(load_rgb(kind.replace(b"3000 2000", b"2 1") + white)) == 255).all()


def test_a_bitmap_whose_runs_leap_over_gigabytes() -> None:
    head = struct.pack("<IiiHHIIiiII", 40, 100_000_000, 1, 1, 8, 1, 0, 0, 0, 256, 0)
    data = b"BM" + struct.pack("<IHHI", 0, 0, 0, 54 + 1024) + head + b"\1\2\3\0" * 256
    assert "takes too long" in refused(data + b"\0\2\0\xff" * 10)


def test_a_header_that_never_ends() -> None:
    start = b"\xff\xd8\xff\xe0\x00\x10JFIF" + b"\0" * 11
    segments = (b"\xff\xe5\xff\xff" + b"a" * 65533) * 600
    for junk in (b"\0" * 1_000_000, segments):
        assert "more than 32 MB before the pixels" in refused(start + junk)


def test_a_tiff_of_more_parts_than_any_photo() -> None:
    assert "600000 parts" in refused(little_tiff(*GRAY_TIFF, (273, 4, 600_000, 200)))
    assert "90 MB of tags" in refused(little_tiff(*GRAY_TIFF, (700, 7, 90_000_000, 200)))


@pytest.mark.parametrize("mode", ["F", "I", "I;16"])
def test_deep_images_are_converted_in_strips(mode: str, tmp_path: Path) -> None:
    """A full-size copy in floats once took 20 bytes a pixel."""
    values = np.asarray(photo(SIDE, "L"))
    deep = {
        "F": values.astype(np.float32) / 255,
        "I": values.astype(np.int32) * 257,
        "I;16": values.astype(np.uint16) * 257,
    }[mode]
    path = tmp_path / "deep.tif"
    Image.fromarray(deep).save(path)
    assert peak(path) < deep.nbytes + 16e6


def peak(path: Path) -> float:
    """Bytes that loading takes, above those of a tiny image."""
    tiny = path.with_name(f"tiny{path.suffix}")
    photo().save(tiny)
    whole, base = (child_peak_bytes(LOAD, [str(one), "100000000"]) for one in (path, tiny))
    if whole is None or base is None:
        pytest.skip("this system does not tell a process's memory")
    return whole - base


KINDS: dict[str, dict[str, Any]] = {
    "plain.jpg": {},
    "progressive.jpg": {"progressive": True, "subsampling": 0},
    "a.png": {},
    "lossy.webp": {"method": 0},
    "lossless.webp": {"lossless": True, "method": 0},
    "a.avif": {"speed": 10},
    "full.avif": {"speed": 10, "subsampling": "4:4:4"},
    "whole.jp2": {},
    "tiles.jp2": {"tile_size": (256, 256)},
    "a.gif": {},
    "a.bmp": {},
    "raw.tif": {},
    "lzw.tif": {"compression": "tiff_lzw"},
    "strip.tif": {"compression": "tiff_adobe_deflate", "tiffinfo": {278: SIDE}},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_no_format_takes_more_than_the_table_says(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    photo(SIDE, "L" if name == "a.gif" else "RGB").save(path, **KINDS[name])
    with open(path, "rb") as file, open_image(file, name) as image:
        assert isinstance(image, ImageFile.ImageFile)
        assert image.fp is not None
        expected = limits.decoding_bytes(image, image.fp)
    assert peak(path) < expected * 1.05 + 16e6
