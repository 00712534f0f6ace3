"""Pictures drawn from a seed: probes and a golden image where no photo is given."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

COARSE = 6  # blobs along a side
GRAIN = 12.0  # of 255; without it flat areas make equal tokens, which merging may pair either way


def drawn_pictures(count: int, size: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """uint8 [count, size, size, 3]: blobs of colour under a little noise."""
    random = np.random.default_rng(seed)
    pictures = np.empty((count, size, size, 3), np.uint8)
    for picture in pictures:
        blobs = Image.fromarray(random.integers(0, 256, (COARSE, COARSE, 3), dtype=np.uint8))
        smooth = np.asarray(blobs.resize((size, size), Image.Resampling.BICUBIC), np.float32)
        noisy = smooth + random.normal(0, GRAIN, smooth.shape)
        picture[:] = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
    return pictures
