"""From the modes of Pillow to RGB: depth, colours and transparency, a strip at a time."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image

from nanocap.image.decoding.colour import Transform, srgb_transform
from nanocap.image.decoding.depth import eight_bits, is_deep

WHITE = (255, 255, 255)


def rgb_conversion(image: Image.Image, name: str) -> Callable[[Image.Image], Image.Image]:
    """What turns parts of a decoded image into RGB: sRGB, alpha over white.

    Raises:
        ImageError: its values are outside the rule of `load_image`.
    """
    eight = eight_bits(image, name) if is_deep(image) else None
    colours = srgb_transform(image, name)

    def convert(part: Image.Image) -> Image.Image:
        shallow = eight(part) if eight else part
        return _to_rgb(shallow) if colours is None else _to_srgb(shallow, *colours)

    return convert


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image if image.mode == "RGBA" else image.convert("RGBA")
    return _over_white(layer, layer)


def _to_srgb(image: Image.Image, mode: str, transform: Transform) -> Image.Image:
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
