"""Embedded profiles are applied, and what cannot be applied is said and ignored."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from nanocap.errors import ImageWarning
from nanocap.image.decoding.colour import is_srgb
from nanocap.image.image import load_image, load_rgb
from nanocap.image.rule import ImageRule

RULE = ImageRule(size=24)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GAMMA_1_8 = b"curv\0\0\0\0\0\0\0\1" + struct.pack(">H", round(1.8 * 256))


def tags(profile: bytes) -> dict[bytes, tuple[int, int, int]]:
    """Of each tag, the place of its entry, and start and size of its data."""
    (count,) = struct.unpack_from(">I", profile, 128)
    found = {}
    for place in range(132, 132 + 12 * count, 12):
        tag, start, size = struct.unpack_from(">4sII", profile, place)
        found[tag] = (place, start, size)
    return found


def with_tags(profile: bytes, **changed: bytes) -> bytes:
    """The profile with other data for some tags, put at its end."""
    data = bytearray(profile)
    for name, value in changed.items():
        place, _, _ = tags(profile)[name.encode()]
        data += b"\0" * (-len(data) % 4)
        struct.pack_into(">II", data, place + 4, len(data), len(value))
        data += value
    struct.pack_into(">I", data, 0, len(data))
    return bytes(data)


def data_of(profile: bytes, tag: bytes) -> bytes:
    _, start, size = tags(profile)[tag]
    return profile[start : start + size]


EXCHANGED = with_tags(SRGB, rXYZ=data_of(SRGB, b"gXYZ"), gXYZ=data_of(SRGB, b"rXYZ"))
GENERIC = with_tags(SRGB, rTRC=GAMMA_1_8, gTRC=GAMMA_1_8, bTRC=GAMMA_1_8)
GRAY = (
    struct.pack(">I4sI4s4s4s", 220, b"lcms", 0x02400000, b"mntr", b"GRAY", b"XYZ ")
    + struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp")
    + b"\0" * 28
    + struct.pack(">3i", 63190, 65536, 54061)
    + b"\0" * 48
    + struct.pack(">I4sII4sII", 2, b"wtpt", 156, 20, b"kTRC", 176, 14)
    + b"XYZ \0\0\0\0"
    + struct.pack(">3i", 63190, 65536, 54061)
    + GAMMA_1_8
).ljust(220, b"\0")


def photo(mode: str = "RGB") -> Image.Image:
    x, y = np.meshgrid(np.linspace(20, 235, 40), np.linspace(20, 235, 30))
    return Image.fromarray(np.stack([x, y, (x + y) / 2], axis=2).astype(np.uint8)).convert(mode)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "PIL"])
def test_exchanged_primaries_exchange_the_channels(kind: str) -> None:
    Image.init()
    if kind not in {*Image.SAVE, "PIL"}:
        pytest.skip(f"this Pillow writes no {kind}")
    image = photo()
    options: dict[str, Any] = {"quality": 100} if kind in ("JPEG", "WEBP", "AVIF") else {}
    if kind == "PIL":
        image.info["icc_profile"] = EXCHANGED
        plain: Any = photo()
        source: Any = image
    else:
        plain = encoded(image, kind, **options)
        source = encoded(image, kind, icc_profile=EXCHANGED, **options)
    expected = np.asarray(load_rgb(plain))[..., [1, 0, 2]].astype(int)
    found = np.asarray(load_rgb(source)).astype(int)
    assert np.abs(found - expected).max() <= 2
    resized = load_image(source, RULE).astype(int)
    assert np.abs(resized - load_image(plain, RULE)[..., [1, 0, 2]]).max() <= 2


def test_a_profile_of_another_gamma() -> None:
    values = np.asarray(photo()) / 255.0
    linear = values**1.8
    expected = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    found = np.asarray(load_rgb(encoded(photo(), "PNG", icc_profile=GENERIC)))
    assert np.abs(found - expected * 255).max() <= 2


def test_a_profile_in_many_segments_of_a_jpeg() -> None:
    large = EXCHANGED + b"\0" * 200_000
    data = encoded(photo(), "JPEG", quality=100, icc_profile=large)
    assert data.count(b"ICC_PROFILE\0") == 4
    found = np.asarray(load_rgb(data)).astype(int)
    plain = np.asarray(load_rgb(encoded(photo(), "JPEG", quality=100)))[..., [1, 0, 2]]
    assert np.abs(found - plain).max() <= 2


def test_srgb_changes_no_pixel_and_imports_nothing() -> None:
    for kind in ("JPEG", "PNG", "TIFF"):
        with_profile = load_image(encoded(photo(), kind, icc_profile=SRGB), RULE)
        np.testing.assert_array_equal(with_profile, load_image(encoded(photo(), kind), RULE))
    code = (
        "import sys; from nanocap.image.image import load_rgb; load_rgb(sys.stdin.buffer.read());"
        " print('PIL.ImageCms' in sys.modules)"
    )
    for profile, imported in ((SRGB, b"False"), (EXCHANGED, b"True")):
        data = encoded(photo(), "PNG", icc_profile=profile)
        run = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True)
        assert run.stdout.strip() == imported, run.stderr


def test_what_is_srgb() -> None:
    """By its numbers: the names of all of these say sRGB."""
    steps = np.arange(1024) / 1023
    curve = np.where(steps <= 0.04045, steps / 12.92, ((steps + 0.055) / 1.055) ** 2.4)
    table = struct.pack(">4s4xI", b"curv", 1024) + (curve * 65535).round().astype(">u2").tobytes()
    assert is_srgb(SRGB)
    assert is_srgb(with_tags(SRGB, rTRC=table, gTRC=table, bTRC=table))
    for profile in (EXCHANGED, GENERIC, GRAY, b"", SRGB[:200], b"\0" * 400):
        assert not is_srgb(profile)


def test_alpha_and_palettes_are_converted_before_they_lie_on_white() -> None:
    half = Image.new("RGBA", (5, 5), (200, 0, 100, 128))
    assert load_image(encoded(half, "PNG", icc_profile=EXCHANGED), RULE)[0, 0].tolist() == (
        pytest.approx([127, 227, 177], abs=2)
    )
    flat = Image.new("P", (6, 6), 1)
    flat.putpalette([255, 0, 0, 200, 20, 30])
    found = load_image(encoded(flat, "PNG", icc_profile=EXCHANGED), RULE)[3, 3]
    assert found.tolist() == pytest.approx([20, 200, 30], abs=2)


def test_gray_and_deep_gray() -> None:
    level = 255 * (1.055 * (100 / 255) ** (1.8 / 2.4) - 0.055)
    gray = Image.new("L", (5, 5), 100)
    deep = Image.fromarray(np.full((5, 5), 100 << 8, np.uint16))
    transparent = Image.new("LA", (5, 5), (100, 255))
    for image in (gray, deep, transparent):
        found = load_image(encoded(image, "PNG", icc_profile=GRAY), RULE)[0, 0]
        assert found.tolist() == pytest.approx([level] * 3, abs=2)
    found = load_image(encoded(gray, "PNG", icc_profile=GENERIC), RULE)[0, 0]
    assert found.tolist() == pytest.approx([level] * 3, abs=2), "of RGB, for a gray image"


def test_lab() -> None:
    lab = ImageCms.profileToProfile(
        photo(), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    lab.info.clear()
    found = np.asarray(load_rgb(encoded(lab, "TIFF"))).astype(int)
    assert np.abs(found - np.asarray(photo())).mean() < 1, "8 bits of Lab are coarser"


def test_what_was_converted_is_not_converted_again() -> None:
    image = load_rgb(encoded(photo(), "PNG", icc_profile=EXCHANGED))
    np.testing.assert_array_equal(np.asarray(load_rgb(image)), np.asarray(image))


@pytest.mark.parametrize(
    ("mode", "profile", "why"),
    [
        ("RGB", b"no profile at all", "cannot open profile"),
        ("RGB", SRGB[:300], "profile"),
        ("RGB", GRAY, "it is for L and the pixels are RGB"),
        ("CMYK", EXCHANGED, "it is for RGB and the pixels are CMYK"),
    ],
)
def test_a_profile_that_cannot_be_used(mode: str, profile: bytes, why: str) -> None:
    image = photo(mode)
    plain = load_image(encoded(image, "TIFF"), RULE)
    with pytest.warns(ImageWarning, match=why) as caught:
        found = load_image(encoded(image, "TIFF", icc_profile=profile), RULE)
    np.testing.assert_array_equal(found, plain)
    (warning,) = caught
    assert str(warning.message).startswith("bytes input")
    assert "\n" not in str(warning.message)


def test_a_profile_that_is_cut_off_or_a_bomb() -> None:
    bomb = zlib.compress(b"\0" * (20 << 20))
    for data in (bomb, zlib.compress(EXCHANGED)[:50], b"junk"):
        png = encoded(photo(), "PNG", icc_profile=EXCHANGED)
        start = png.index(b"iCCP") - 4
        size = int.from_bytes(png[start : start + 4], "big")
        body = b"iCCP" + b"profile\0\0" + data
        chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
        with pytest.warns(ImageWarning, match="cut off"):
            found = load_image(png[:start] + chunk + png[start + size + 12 :], RULE)
        np.testing.assert_array_equal(found, load_image(encoded(photo(), "PNG"), RULE))


def test_heic_and_its_profile() -> None:
    heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    image = photo().resize((64, 64))
    image.info["icc_profile"] = EXCHANGED
    heif.from_pillow(image).save(file, quality=-1, chroma=444)
    found = np.asarray(load_rgb(file.getvalue())).astype(int)
    expected = np.asarray(image)[..., [1, 0, 2]]
    assert np.abs(found - expected).max() <= 6
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_rgb(file.getvalue())
