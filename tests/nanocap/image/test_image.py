"""Anything that holds an image gives the pixels it should, or one line that says why not."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from nanocap.errors import ImageError, OptionError
from nanocap.image.image import load_image, load_rgb
from nanocap.image.rule import ImageRule

RULE = ImageRule(size=24)


def gradient(size: tuple[int, int] = (61, 47)) -> Image.Image:
    """Unlike itself in every mirroring and rotation."""
    x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    return Image.fromarray(np.stack([x, y, (x * y) / 255], axis=2).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def reference(image: Image.Image, rule: ImageRule = RULE) -> npt.NDArray[np.uint8]:
    """The rule in two lines of Pillow, for an upright RGB image."""
    narrow = image.resize((rule.size, image.height), Image.Resampling.BILINEAR)
    return np.asarray(narrow.resize((rule.size, rule.size), Image.Resampling.BILINEAR))


def plain_png(header: bytes, pixels: bytes, size: tuple[int, int]) -> bytes:
    """A PNG with the bit depth and colour type of `header`, which Pillow cannot always write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        sum_ = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", sum_)

    head = struct.pack(">II", *size) + header + b"\0\0\0"
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


SOURCES: dict[str, Callable[[Path], Any]] = {
    "str": str,
    "path": lambda path: path,
    "bytes": lambda path: path.read_bytes(),
    "bytearray": lambda path: bytearray(path.read_bytes()),
    "memoryview": lambda path: memoryview(path.read_bytes()),
    "BytesIO": lambda path: io.BytesIO(path.read_bytes()),
    "open file": lambda path: path.open("rb"),
    "PIL": Image.open,
    "PIL loaded": lambda path: Image.open(path).copy(),
    "array": lambda path: np.asarray(Image.open(path)),
}


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tif", ".ppm"])
def test_every_kind_of_source_gives_the_same_pixels(kind: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"photo{suffix}"
    gradient().save(path)
    pixels = load_image(SOURCES[kind](path), RULE)
    assert pixels.shape == (24, 24, 3)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, reference(Image.open(path)))


def test_a_file_object_is_read_from_its_start_and_stays_open(tmp_path: Path) -> None:
    file = io.BytesIO(encoded(gradient(), "PNG"))
    file.read(100)
    first = load_image(file, RULE)
    assert not file.closed
    np.testing.assert_array_equal(load_image(file, RULE), first)


def test_a_pipe_is_read_to_its_end() -> None:
    receive, send = os.pipe()
    with open(send, "wb") as file:
        file.write(encoded(gradient((8, 8)), "PNG"))
    with open(receive, "rb") as file:
        np.testing.assert_array_equal(load_image(file, RULE), reference(gradient((8, 8))))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(gradient(), kind, exif=exif, **options)
    stored = Image.open(io.BytesIO(data))
    upright = ImageOps.exif_transpose(stored).convert("RGB")
    assert (upright.size == stored.size) == (orientation < 5)
    np.testing.assert_array_equal(load_image(data, RULE), reference(upright))
    np.testing.assert_array_equal(np.asarray(load_rgb(data)), np.asarray(upright))
    ignoring = ImageRule(size=24, exif="ignore")
    np.testing.assert_array_equal(load_image(data, ignoring), reference(stored.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_turned_once(orientation: int) -> None:
    """Pillow turns a TIFF by itself as it decodes it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = gradient()
    image.getexif()[0x0112] = orientation
    upright = ImageOps.exif_transpose(image)
    data = encoded(gradient(), "TIFF", exif=exif)
    np.testing.assert_array_equal(load_image(data, RULE), reference(upright))


@pytest.mark.parametrize("orientation", [b"\x00\x00", b"\x09\x00", b"\xff\xff"])
def test_an_orientation_that_does_not_exist_is_no_orientation(orientation: bytes) -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0" + orientation + b"\0\0" * 3
    data = encoded(gradient(), "PNG", exif=exif)
    np.testing.assert_array_equal(load_image(data, RULE), reference(gradient()))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_says_nothing_about_the_pixels() -> None:
    data = encoded(gradient(), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xffnonsense")
    np.testing.assert_array_equal(load_image(data, RULE), reference(gradient()))


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    orientation=st.integers(1, 8),
    seed=st.integers(0, 99),
)
def test_strips_equal_the_whole(width: int, height: int, orientation: int, seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    image.getexif()[0x0112] = orientation
    pixels = load_image(image, RULE)
    np.testing.assert_array_equal(pixels, reference(load_rgb(image)))
    # Newer versions of Pillow take columns first where that is cheaper, which rounds otherwise.
    whole = np.asarray(load_rgb(image).resize((24, 24), Image.Resampling.BILINEAR))
    assert np.abs(pixels.astype(int) - whole).max() <= 1


def test_alpha_is_put_over_white() -> None:
    image = gradient().convert("RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    assert (load_image(encoded(image, "PNG"), RULE) == 255).all(), "transparent is white"
    image.putalpha(Image.new("L", image.size, 255))
    np.testing.assert_array_equal(load_image(encoded(image, "PNG"), RULE), reference(gradient()))
    half = Image.new("RGBA", (5, 5), (100, 0, 200, 128))
    assert load_image(half, RULE)[0, 0].tolist() == [177, 127, 227]
    gray = Image.new("LA", (5, 5), (100, 128))
    assert load_image(encoded(gray, "PNG"), RULE)[0, 0].tolist() == [177, 177, 177]


def test_palettes() -> None:
    flat = Image.new("P", (6, 6), 1)
    flat.putpalette([255, 0, 0, 10, 20, 30])
    assert load_image(encoded(flat, "PNG"), RULE)[3, 3].tolist() == [10, 20, 30]
    for clear in (1, b"\xff\x00"):  # an index, or an alpha for each index
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            data = encoded(flat, "PNG", transparency=clear)
            assert load_image(data, RULE)[3, 3].tolist() == [255, 255, 255]
    half = encoded(flat, "PNG", transparency=b"\xff\x80")
    assert load_image(half, RULE)[3, 3].tolist() == [132, 137, 142]
    assert load_image(encoded(flat, "GIF", transparency=1), RULE)[3, 3].tolist() == [255] * 3


@pytest.mark.parametrize("mode", ["RGB", "L", "1"])
def test_a_colour_that_a_png_calls_transparent(mode: str) -> None:
    black = Image.new(mode, (6, 6), 0)
    clear = (0, 0, 0) if mode == "RGB" else 0
    data = encoded(black, "PNG", transparency=clear)
    assert (load_image(data, RULE) == 255).all()
    assert (load_image(encoded(black, "PNG"), RULE) == 0).all()


def test_cmyk() -> None:
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # magenta and yellow: red
    for kind in ("JPEG", "TIFF"):
        red = load_image(encoded(image, kind), RULE)[4, 4]
        assert red[0] > 240
        assert red[1:].max() < 15


def test_sixteen_bits_keep_their_range() -> None:
    """Pillow's own conversion clips at 255: a 16-bit photo would be white."""
    deep = np.linspace(0, 65535, 40 * 30).reshape(30, 40).astype(np.uint16)
    eight = Image.fromarray((deep >> 8).astype(np.uint8)).convert("RGB")
    expected = reference(eight)
    image = Image.fromarray(deep)
    assert image.mode.startswith("I;16")
    for source in (deep, image, encoded(image, "PNG"), encoded(image, "TIFF")):
        np.testing.assert_array_equal(load_image(source, RULE), expected)
    wide = Image.fromarray(deep.astype(np.int32))
    assert wide.mode == "I"
    np.testing.assert_array_equal(load_image(wide, RULE), expected)
    np.testing.assert_array_equal(load_image(encoded(wide, "PPM"), RULE), expected)


def test_sixteen_bits_of_colour_and_of_transparency() -> None:
    row = struct.pack(">3H", 0x8080, 0xFFFF, 0x0000) * 2
    data = plain_png(b"\x10\x02", (b"\0" + row) * 2, (2, 2))
    assert load_image(data, RULE)[0, 0].tolist() == [128, 255, 0]
    clear = Image.fromarray(np.full((4, 4), 300, np.uint16))
    assert (load_image(encoded(clear, "PNG"), RULE) == 1).all()
    clear.info["transparency"] = 300
    assert (load_image(clear, RULE) == 255).all()


def test_gray_and_one_bit() -> None:
    gray = gradient().convert("L")
    expected = reference(gray.convert("RGB"))
    for source in (
        gray,
        np.asarray(gray),
        np.asarray(gray)[..., None],
        encoded(gray, "JPEG", quality=100),
    ):
        assert np.abs(load_image(source, RULE).astype(int) - expected).max() <= 2
    bits = gray.convert("1")
    expected = reference(bits.convert("RGB"))
    for source in (bits, np.asarray(bits), encoded(bits, "PNG"), encoded(bits, "TIFF")):
        np.testing.assert_array_equal(load_image(source, RULE), expected)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_several_frames_the_first_counts(kind: str) -> None:
    red, blue = Image.new("RGB", (9, 9), (255, 0, 0)), Image.new("RGB", (9, 9), (0, 0, 255))
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(red, kind, save_all=True, append_images=[blue], **options)
    assert getattr(Image.open(io.BytesIO(data)), "n_frames", 1) == 2
    assert load_image(data, RULE)[4, 4].tolist() == [255, 0, 0]


def test_a_frame_larger_than_its_canvas_is_a_larger_image() -> None:
    data = bytearray(encoded(Image.new("L", (9, 9), 200), "GIF"))
    data[6:10] = struct.pack("<HH", 4, 4)  # of the canvas
    assert load_rgb(bytes(data)).size == (9, 9)
    assert "81" not in one_line_about("9x9", bytes(data), max_pixels=80)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 2)])
def test_tiny_and_narrow_images(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, (9, 8, 7))
    assert (load_image(encoded(image, "PNG"), RULE) == [9, 8, 7]).all()


def test_the_callers_image_is_left_alone() -> None:
    image = gradient().convert("RGBA")
    image.getexif()[0x0112] = 6
    before, info = image.tobytes(), dict(image.info)
    load_image(image, RULE)
    rgb = load_rgb(image)
    rgb.paste((0, 0, 0), (0, 0, 5, 5))
    assert image.tobytes() == before
    assert (image.mode, image.info) == ("RGBA", info)


def one_line_about(name: str, source: Any, **options: Any) -> str:
    with pytest.raises(ImageError) as caught:
        load_image(source, RULE, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert name in message
    return message


def test_files_that_are_no_images(tmp_path: Path) -> None:
    assert "no such file" in one_line_about("gone.jpg", tmp_path / "gone.jpg")
    assert "folder" in one_line_about(tmp_path.name, tmp_path)
    empty = tmp_path / "empty.jpg"
    empty.touch()
    assert "is empty" in one_line_about("empty.jpg", empty)
    text = tmp_path / "text.jpg"
    text.write_text("this is no photo, whatever the name says\n")
    assert "not an image" in one_line_about("text.jpg", text)
    assert "no such file" in one_line_about(r"a\nb.jpg", "a\nb.jpg")
    assert "cannot be opened" in one_line_about("null", "null\0byte.jpg")
    assert "is empty" in one_line_about("bytes input (0 bytes)", b"")
    assert "not an image" in one_line_about("int", 5)
    assert "open it as bytes" in one_line_about("StringIO", io.StringIO("text"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("part", [0.03, 0.5, 0.95])
def test_truncated_files(kind: str, part: float, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (80, 90, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    path = tmp_path / f"cut.{kind.lower()}"
    path.write_bytes(data[: int(len(data) * part)])
    assert "again" in one_line_about("cut.", path)


def test_any_damage_is_an_image_error_or_an_image() -> None:
    data = bytearray(encoded(gradient(), "PNG", exif=Image.Exif()))
    rng = np.random.default_rng(1)
    for _ in range(200):
        broken = bytearray(data)
        for place in rng.integers(8, len(data), size=3):
            broken[place] = rng.integers(0, 256)
        with suppress(ImageError):
            assert load_image(bytes(broken), RULE).shape == (24, 24, 3)


def test_a_program_is_never_started_for_an_image() -> None:
    """Pillow would hand PostScript to Ghostscript."""
    assert "not an image" in one_line_about(
        "bytes", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
    )


def test_heic_is_recognized() -> None:
    assert "HEIC" in one_line_about("bytes", b"\0\0\0\x18ftypheic" + b"\0" * 20)


def test_a_bomb_is_refused_by_its_header() -> None:
    """50,000 x 50,000 would be 10 GB; the file has 100 bytes and no pixels at all."""
    bomb = plain_png(b"\x08\x02", b"", (50_000, 50_000))
    message = one_line_about("bytes", bomb)
    assert "50000x50000" in message
    assert "2500.0 megapixels" in message
    assert "--max-pixels" in message


def test_the_limit_is_the_callers_and_pillows_is_untouched() -> None:
    before = Image.MAX_IMAGE_PIXELS
    image = gradient((40, 30))
    for source in (image, encoded(image, "PNG"), np.asarray(image)):
        assert "1200" not in one_line_about("", source, max_pixels=1199)
        assert load_image(source, RULE, max_pixels=1200).shape == (24, 24, 3)
    # A header of 200 megapixels, above Pillow's own limit, passes ours if the caller says so: what
    # is then missed is the pixels.
    large = plain_png(b"\x01\x00", b"", (20_000, 10_000))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "megapixels" in one_line_about("bytes", large)
        assert "megapixels" not in one_line_about("bytes", large, max_pixels=200_000_000)
    assert before == Image.MAX_IMAGE_PIXELS


KINDS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "ICO", "JPEG2000")
FILES = {kind: encoded(gradient((33, 21)), kind) for kind in KINDS}
FILES["progressive"] = encoded(gradient((33, 21)), "JPEG", progressive=True)
FILES["deflate"] = encoded(gradient((33, 21)), "TIFF", compression="tiff_adobe_deflate")


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=300, deadline=None)
@given(kind=st.sampled_from(sorted(FILES)), data=st.data())
def test_any_bytes_are_an_image_or_an_image_error(kind: str, data: st.DataObject) -> None:
    """Cut off, altered, lengthened: never another exception, never more than the limits."""
    broken = bytearray(FILES[kind])
    for _ in range(data.draw(st.integers(0, 4))):
        place = data.draw(st.integers(0, len(broken) - 1))
        broken[place] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(broken)))
    tail = data.draw(st.binary(max_size=20))
    try:
        pixels = load_image(bytes(broken[:end]) + tail, RULE, max_pixels=1_000_000)
    except ImageError as error:
        message = str(error)
    else:
        assert pixels.shape == (24, 24, 3)
        message = ""
    assert "\n" not in message


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=200, deadline=None)
@given(start=st.sampled_from([b"", *(data[:12] for data in FILES.values())]), rest=st.binary())
def test_no_bytes_at_all_are_another_exception(start: bytes, rest: bytes) -> None:
    with suppress(ImageError):
        assert load_image(start + rest, RULE, max_pixels=1_000_000).shape == (24, 24, 3)


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 0},
        {"size": 5000},
        {"fit": "crop"},
        {"resample": "lanczos"},
        {"exif": "maybe"},
        {"std": (1.0, 0.0, 1.0)},
    ],
)
def test_rules_that_cannot_be(changes: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="image rule"):
        ImageRule(**changes)


class Number:
    def __fspath__(self) -> int:
        return 5


@pytest.mark.parametrize(
    "source",
    [
        Number(),
        memoryview(b"no photo at all")[::2],
        type("Closed", (), {"read": lambda self: b""})(),
        type("NoMethod", (), {"read": 5})(),
    ],
    ids=["path", "memoryview", "file", "attribute"],
)
def test_sources_that_fail_when_they_are_read(source: Any) -> None:
    for load in (load_image, load_rgb):
        with pytest.raises(ImageError) as caught:
            load(source)
        assert "\n" not in str(caught.value)


def test_a_file_that_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(path)
    with path.open("rb") as file:
        pass
    with pytest.raises(ImageError, match="cannot be read"):
        load_image(file)


def test_names_that_numpy_and_the_file_system_give(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (4, 4), "red").save(path)
    expected = load_image(path)
    (entry,) = os.scandir(os.fsencode(tmp_path))
    for source in (np.str_(str(path)), np.bytes_(path.read_bytes()), entry):
        np.testing.assert_array_equal(load_image(source), expected)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options", [{"max_pixels": "3"}, {"max_pixels": None}, {"max_pixels": 0.5}]
)
def test_options_that_cannot_be(options: dict[str, Any]) -> None:
    for load in (load_image, load_rgb):
        with pytest.raises(OptionError, match=r"^max_pixels must be"):
            load(Image.new("RGB", (4, 4)), **options)


def test_a_rule_that_is_none() -> None:
    with pytest.raises(OptionError, match="rule must be an ImageRule, got 5"):
        load_image(Image.new("RGB", (4, 4)), 5)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="exif must be one of"):
        load_rgb(Image.new("RGB", (4, 4)), exif="3")
    for wrong in ({"size": "3"}, {"mean": 0}, {"std": None}):
        with pytest.raises(OptionError, match="image rule"):
            ImageRule(**wrong)  # type: ignore[arg-type]
