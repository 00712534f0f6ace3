"""What the process does whose peak memory is measured."""

from __future__ import annotations

from nanocap.bundle import Bundle
from nanocap.image.image import load_image
from nanocap.runtime.captioner import Captioner


def caption_once(bundle: str, artifact: str, threads: str, photo: str) -> None:
    """Caption one photo with the least memory: decode first, then load the model."""
    opened = Bundle(bundle)
    pixels = load_image(photo, opened.manifest.image)
    Captioner(opened, artifact=artifact, threads=int(threads))(pixels)
