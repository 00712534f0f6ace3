"""Peak memory of the process `nanocap caption` for one drawn photo of 12 megapixels.

The figure is the resident set's peak as the kernel counted it for that process (what
`/usr/bin/time -v` prints). Exits with 1 above the limit.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

WIDTH, HEIGHT = 4000, 3000  # 12 megapixels
UNIT = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, KiB on Linux
MB = 1_000_000

# Drawn in a process of its own: on Linux a child's peak starts at its parent's size, so this one
# has to stay small.
DRAW = """
import sys
import numpy as np
from PIL import Image, ImageDraw
width, height, path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
coarse = np.random.default_rng(0).integers(0, 256, (height // 50, width // 50, 3), dtype=np.uint8)
photo = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
draw = ImageDraw.Draw(photo)
draw.rectangle((0, height * 2 // 3, width, height), fill=(70, 120, 60))
draw.ellipse((width // 3, height // 3, width // 2, height * 4 // 5), fill=(150, 90, 40))
photo.save(path, quality=90)
"""


def peak_bytes(command: list[str]) -> int:
    """Peak resident bytes of one run of `command`; exits with its status if it fails."""
    process = os.posix_spawn(command[0], command, os.environ)
    _, status, usage = os.wait4(process, 0)
    if status != 0:
        sys.exit(f"memory.py: {' '.join(command)} failed; run it alone to see why")
    return usage.ru_maxrss * UNIT


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=float, default=220, help="largest peak in MB (default 220)")
    options = parser.parse_args()

    script = Path(sysconfig.get_path("scripts")) / "nanocap"
    with tempfile.TemporaryDirectory() as folder:
        photo = str(Path(folder) / "drawn.jpg")
        subprocess.run([sys.executable, "-c", DRAW, str(WIDTH), str(HEIGHT), photo], check=True)
        peak_mb = peak_bytes([str(script), "caption", photo]) / MB
    print(f"peak {peak_mb:.1f} MB (limit {options.limit:.0f} MB)")
    return int(peak_mb > options.limit)


if __name__ == "__main__":
    sys.exit(main())
