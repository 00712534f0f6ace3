"""Memory and time of `nanocap caption` for the heaviest photos that it takes, a process each.

Each kind is drawn at 100 megapixels, the default limit, and where that is refused, at the largest
size that is not. Exits with 1 above a limit.

    python tests/benchmarks/heaviest.py
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

UNIT = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, KiB on Linux
MB = 1_000_000
SHRINK = 0.95  # of the side, until a size is taken

# Drawn in a process of its own: on Linux a child's peak starts at its parent's size, so this one
# has to stay small. Noise costs decoders most; a strip of it is repeated.
DRAW = """
import sys
import numpy as np
from PIL import Image
Image.MAX_IMAGE_PIXELS = None
kind, side, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
rng = np.random.default_rng(0)
deep = {"png16": np.uint16, "tiff-float": np.float32}.get(kind)
if deep:
    strip = rng.random((50, side), np.float32)
    strip = (strip * 65535).astype(deep) if deep is np.uint16 else strip
    photo = Image.fromarray(np.tile(strip, (side // 50 + 1, 1))[:side])
else:
    strip = rng.integers(0, 256, (50, side // 8 + 1, 3), np.uint8).repeat(8, axis=1)[:, :side]
    photo = Image.fromarray(np.tile(strip, (side // 50 + 1, 1, 1))[:side])
mode = {"cmyk-jpeg": "CMYK", "png-alpha": "RGBA", "gif": "P", "tiff-alpha": "RGBA"}.get(kind)
photo = photo.convert(mode) if mode else photo
options = {
    "jpeg": {"format": "JPEG", "quality": 90},
    "progressive": {"format": "JPEG", "quality": 90, "progressive": True},
    "progressive-444": {"format": "JPEG", "progressive": True, "subsampling": 0},
    "cmyk-jpeg": {"format": "JPEG", "progressive": True},
    "png": {"format": "PNG", "compress_level": 1},
    "png16": {"format": "PNG", "compress_level": 1},
    "png-alpha": {"format": "PNG", "compress_level": 1},
    "gif": {"format": "GIF"},
    "bmp": {"format": "BMP"},
    "tiff-float": {"format": "TIFF", "compression": "tiff_lzw"},
    "tiff-alpha": {"format": "TIFF", "compression": "tiff_adobe_deflate"},
    "webp": {"format": "WEBP", "quality": 80, "method": 0},
    "webp-lossless": {"format": "WEBP", "lossless": True, "method": 0, "quality": 0},
    "avif": {"format": "AVIF", "quality": 60, "speed": 10},
    "jpeg2000": {"format": "JPEG2000", "quality_mode": "rates", "quality_layers": [40]},
}[kind]
photo.save(path, **options)
"""
KINDS = {  # megapixels to begin with
    **dict.fromkeys(("jpeg", "progressive", "progressive-444", "cmyk-jpeg", "png", "png16"), 100),
    **dict.fromkeys(("png-alpha", "gif", "bmp", "tiff-float", "tiff-alpha"), 100),
    **{"webp": 29, "webp-lossless": 29, "avif": 48, "jpeg2000": 25},
}


def caption(photo: str) -> tuple[int, float, float]:
    """Exit status, peak MB and seconds of a process that captions `photo`."""
    script = str(Path(sysconfig.get_path("scripts")) / "nanocap")
    start = time.perf_counter()
    with open(os.devnull, "wb") as nowhere:
        actions = [(os.POSIX_SPAWN_DUP2, nowhere.fileno(), number) for number in (1, 2)]
        process = os.posix_spawn(
            script, [script, "caption", photo], os.environ, file_actions=actions
        )
        _, status, usage = os.wait4(process, 0)
    return status, usage.ru_maxrss * UNIT / MB, time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--memory", type=float, default=600, help="largest peak in MB (600)")
    parser.add_argument("--seconds", type=float, default=10, help="longest time (10)")
    parser.add_argument("kinds", nargs="*", default=list(KINDS), help="some kinds alone")
    options = parser.parse_args()

    over = False
    print(f"{'':16} megapixels  peak MB  seconds")
    for kind in options.kinds:
        side = int((KINDS[kind] * 1e6) ** 0.5)
        with tempfile.TemporaryDirectory() as folder:
            while True:
                photo = str(Path(folder) / kind)
                subprocess.run([sys.executable, "-c", DRAW, kind, str(side), photo], check=True)
                status, peak, seconds = caption(photo)
                if status == 0:
                    break
                side = int(side * SHRINK)
        above = peak > options.memory or seconds > options.seconds
        over |= above
        print(
            f"{kind:16} {side * side / 1e6:10.1f} {peak:8.0f} {seconds:8.1f}"
            f"{'  above the limit' if above else ''}",
            flush=True,
        )
    return int(over)


if __name__ == "__main__":
    sys.exit(main())
