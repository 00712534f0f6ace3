"""Draw docs/strip.webp: sample photos with the captions of the shipped model, for the README.

    python docs/strip.py

Run it again when the model changes; the alternative text in README.md is written anew, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from nanocap import Captioner

ROOT = Path(__file__).parents[1]
PHOTOS = ("photos/cat", "photos/wren", "photos/osprey", "hard/astronaut", "hard/spices")
STRIP = ROOT / "docs" / "strip.webp"
ALT = re.compile(r"!\[[^]]*\](?=\(docs/strip\.webp\))")

# Pixels, at twice the size that the picture has on a page about 880 pixels wide.
CARD, PHOTO, TEXT, GAP, MARGIN, RADIUS = 340, 206, 98, 15, 18, 18
PAPER, BORDER, INK, GREY, AMBER = "#ffffff", "#d0d7de", "#1f2328", "#57606a", "#fff3d6"
LEADING = 1.3  # from line to line, in sizes of the type
SMOOTH = 4  # edges are drawn so many times larger and reduced


def captions() -> dict[str, str]:
    """The shipped model's caption of each photo."""
    captioner = Captioner(threads=1)
    return {name: captioner(ROOT / "samples" / f"{name}.jpg").text for name in PHOTOS}


def rounded(size: tuple[int, int], radius: int) -> Image.Image:
    """A mask with round corners."""
    large = Image.new("L", (size[0] * SMOOTH, size[1] * SMOOTH))
    box = (0, 0, large.width - 1, large.height - 1)
    ImageDraw.Draw(large).rounded_rectangle(box, radius * SMOOTH, fill=255)
    return large.resize(size, Image.Resampling.LANCZOS)


def wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Lines no wider than `width`."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def largest(texts: Iterable[str]) -> int:
    """The largest type in which each of the captions fits its card."""
    for points in range(24, 12, -1):
        font = ImageFont.load_default(points)
        lines = max(len(wrapped(text, font, CARD - 2 * MARGIN)) for text in texts)
        if lines * points * LEADING <= TEXT - MARGIN:
            break
    return points


def card(name: str, text: str, points: int) -> Image.Image:
    """One photo with its caption in type of that size; those of samples/hard carry a tag."""
    size = (CARD, PHOTO + TEXT)
    drawn = Image.new("RGB", size, PAPER)
    with Image.open(ROOT / "samples" / f"{name}.jpg") as photo:
        drawn.paste(ImageOps.fit(photo.convert("RGB"), (CARD, PHOTO), centering=(0.5, 0.2)))
    draw = ImageDraw.Draw(drawn)
    if name.startswith("hard/"):
        tag = ImageFont.load_default(18)
        label = (round(tag.getlength("hard")) + 20, 28)
        drawn.paste(Image.new("RGB", label, AMBER), (12, 12), rounded(label, 14))
        draw.text((22, 26), "hard", fill=GREY, font=tag, anchor="lm")
    font = ImageFont.load_default(points)
    lines = wrapped(text, font, CARD - 2 * MARGIN)
    top = PHOTO + (TEXT - len(lines) * points * LEADING) / 2
    for number, line in enumerate(lines):
        at = (MARGIN, top + (number + 0.5) * points * LEADING)
        draw.text(at, line, fill=INK, font=font, anchor="lm")
    framed = Image.new("RGBA", size)
    framed.paste(Image.new("RGB", size, BORDER), mask=rounded(size, RADIUS))
    inner = (CARD - 4, PHOTO + TEXT - 4)
    framed.paste(drawn.crop((2, 2, CARD - 2, PHOTO + TEXT - 2)), (2, 2), rounded(inner, RADIUS - 2))
    return framed


def main() -> None:
    found = captions()
    strip = Image.new("RGBA", (len(PHOTOS) * (CARD + GAP) - GAP, PHOTO + TEXT))
    points = largest(found.values())
    for number, (name, text) in enumerate(found.items()):
        strip.paste(card(name, text, points), (number * (CARD + GAP), 0))
    strip.save(STRIP, quality=88, method=6)
    said = " ".join(f"{Path(name).name.capitalize()}: {text}" for name, text in found.items())
    readme = ROOT / "README.md"
    page = readme.read_text(encoding="utf-8")
    readme.write_text(ALT.sub(lambda _: f"![{said}]", page), encoding="utf-8")
    print(f"{STRIP.name}: {strip.width} x {strip.height}, {STRIP.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
