"""From the modes of Pillow to RGB: depth, transparency, and colours as the model knows them, sRGB.

Embedded profiles (ICC.1:2022) are applied, not ignored. PNG's gAMA and cHRM, and the colour codes
of AVIF and HEIC (nclx), are not applied: nearly all say sRGB in another way.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable
from typing import cast

import numpy as np
from PIL import Image

from nanocap.errors import ImageWarning, one_line
from nanocap.image.decoding.values import eight_bits

Transform = Callable[[Image.Image], Image.Image]

SRGB_PRIMARIES = {  # XYZ under D50, as in the profile of IEC 61966-2-1
    b"rXYZ": (0.4361, 0.2225, 0.0139),
    b"gXYZ": (0.3851, 0.7169, 0.0971),
    b"bXYZ": (0.1431, 0.0606, 0.7141),
}
CURVES = (b"rTRC", b"gTRC", b"bTRC")
TABLES = {b"A2B0", b"A2B1", b"A2B2"}  # they stand above primaries and curves
PRIMARY_TOLERANCE = 0.002
CURVE_TOLERANCE = 0.75 / 255
FIXED = 65536.0  # s15Fixed16Number
SPACES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # of profiles: Pillow's mode
GRAYS = ("1", "L", "LA", "I", "F")
# Parameters of each type of parametric curve, as (g, a, b, c, d, e, f) by their places.
PARAMETRIC = {0: "g", 1: "gab", 2: "gabc", 3: "gabcd", 4: "gabcdef"}
WHITE = (255, 255, 255)


def rgb_conversion(image: Image.Image, name: str) -> Callable[[Image.Image], Image.Image]:
    """What turns parts of a decoded image into RGB: sRGB, alpha over white; raises ImageError."""
    deep = image.mode.startswith(("I", "F"))  # grayscale of more than 8 bits
    eight = eight_bits(image, name) if deep else None
    colours = srgb_transform(image, name)

    def convert(part: Image.Image) -> Image.Image:
        shallow = eight(part) if eight else part
        return _without_profile(shallow) if colours is None else _by_profile(shallow, *colours)

    return convert


def _without_profile(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    layer = image if image.mode == "RGBA" else image.convert("RGBA")
    return _over_white(layer, layer)


def _by_profile(image: Image.Image, mode: str, transform: Transform) -> Image.Image:
    if not image.has_transparency_data:
        return transform(image if image.mode == mode else image.convert(mode))
    layer = image if image.mode == "RGBA" else image.convert("RGBA")
    # A gray image has the same value in each channel: its profile is for one of them.
    colours = layer.convert("RGB") if mode == "RGB" else layer.getchannel("R")
    return _over_white(transform(colours), layer)


def _over_white(colours: Image.Image, mask: Image.Image) -> Image.Image:
    white = Image.new("RGB", colours.size, WHITE)
    white.paste(colours, mask=mask)
    return white


def srgb_transform(image: Image.Image, name: str) -> tuple[str, Transform] | None:
    """How the colours of `image` become sRGB: the mode that is put in, and the change itself.

    None where they are sRGB already, or nothing can be known of them; a profile that cannot be
    used gives an ImageWarning with the image's name.
    """
    if image.mode == "LAB":
        return _to_srgb("LAB", None)
    if "icc_profile" not in image.info:
        return None
    profile = image.info["icc_profile"]
    if profile is None and image.format is not None:
        _warn(name, "cut off")
    if not profile or is_srgb(profile):
        return None
    try:
        mode, transform = _to_srgb("", profile)
    except Exception as error:  # Little CMS and Pillow raise several kinds
        _warn(name, str(error) or type(error).__name__)
        return None
    gray = image.mode in GRAYS or image.mode.startswith("I;16")
    fitting = ("L", "RGB") if gray else ("CMYK",) if image.mode == "CMYK" else ("RGB",)
    if mode in fitting:
        return mode, transform
    _warn(name, f"it is for {mode} and the pixels are {image.mode}")
    return None


def is_srgb(profile: bytes) -> bool:
    """Whether a profile says sRGB, by its primaries and curves: a name can be anything.

    Not by Little CMS, whose import would slow down each photo.
    """
    try:
        (count,) = struct.unpack_from(">I", profile, 128)
        tags: dict[bytes, bytes] = {}
        for index in range(min(count, 100)):
            tag, start, size = struct.unpack_from(">4sII", profile, 132 + 12 * index)
            tags[tag] = profile[start : start + size]
        if profile[16:20] != b"RGB " or profile[20:24] != b"XYZ " or TABLES & tags.keys():
            return False
        for tag, primary in SRGB_PRIMARIES.items():
            found = struct.unpack_from(">3i", tags[tag], 8)
            if any(
                abs(one / FIXED - other) > PRIMARY_TOLERANCE
                for one, other in zip(found, primary, strict=True)
            ):
                return False
        return all(_is_srgb_curve(tags[tag]) for tag in CURVES)
    except (struct.error, KeyError, ArithmeticError, ValueError):
        return False


def _is_srgb_curve(curve: bytes) -> bool:
    levels = [level / 32 for level in range(33)]
    if curve[:4] == b"curv":
        (count,) = struct.unpack_from(">I", curve, 8)
        if count < 2:  # no curve, or a power
            return False
        table = struct.unpack_from(f">{count}H", curve, 12)
        linear = list(np.interp(levels, np.linspace(0, 1, count), table) / 65535)
    elif curve[:4] == b"para":
        kind, _ = struct.unpack_from(">HH", curve, 8)
        numbers = struct.unpack_from(f">{len(PARAMETRIC[kind])}i", curve, 12)
        values = {
            key: number / FIXED for key, number in zip(PARAMETRIC[kind], numbers, strict=True)
        }
        linear = [_parametric(level, kind, values) for level in levels]
    else:
        return False
    return all(
        abs(_encoded(value) - level) < CURVE_TOLERANCE
        for value, level in zip(linear, levels, strict=True)
    )


def _parametric(level: float, kind: int, p: dict[str, float]) -> float:
    if kind < 3:
        return -1.0  # none of them has the linear part of sRGB
    if level < p["d"]:
        return p["c"] * level + p.get("f", 0.0)
    return float((p["a"] * level + p["b"]) ** p["g"]) + p.get("e", 0.0)


def _encoded(linear: float) -> float:
    """IEC 61966-2-1's encoding of a linear value."""
    return 12.92 * linear if linear <= 0.0031308 else 1.055 * float(linear ** (1 / 2.4)) - 0.055


def _to_srgb(mode: str, profile: bytes | None) -> tuple[str, Transform]:
    from PIL import ImageCms

    if profile is None:
        source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    else:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = SPACES[source.profile.xcolor_space.strip()]
    transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    return mode, lambda image: cast(Image.Image, ImageCms.applyTransform(image, transform))


def _warn(name: str, why: str) -> None:
    warnings.warn(
        one_line(f"{name}: its colour profile is ignored ({why}); colours may be off"),
        ImageWarning,
        stacklevel=2,
    )
