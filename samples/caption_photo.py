"""Print one sentence for each photo: python caption_photo.py PHOTO..."""

from __future__ import annotations

import sys

from nanocap import Captioner

if len(sys.argv) < 2:
    sys.exit("usage: python caption_photo.py PHOTO...")

captioner = Captioner()  # the model inside the package: nothing is downloaded
for path in sys.argv[1:]:
    caption = captioner(path)
    print(f"{path}: {caption.text} ({caption.confidence:.2f})")
