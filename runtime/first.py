"""The bundled model with the quickest start, for a program that captions one photo and ends."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from nanocap.bundle import Bundle, default_bundle
from nanocap.runtime.ahead import Ahead

if TYPE_CHECKING:
    from nanocap.caption import Caption
    from nanocap.runtime.loaded import Loaded


@dataclass(frozen=True)
class First:
    """A bundle, and its model on the way."""

    bundle: Bundle
    model: Ahead[Loaded]

    def caption(
        self,
        path: str,
        *,
        max_pixels: int,
        beams: int | None,
        length: str | None,
        n_best: int,
        avoid: Sequence[str] = (),
        require: Sequence[str] = (),
    ) -> Caption:
        """A caption of the photo, which is decoded while the model is loaded.

        Raises:
            ImageError: the photo cannot be read.
            NanocapError: the model cannot be loaded; this goes before.
        """
        from nanocap.image.image import load_image
        from nanocap.runtime.captioner import Captioner

        try:
            pixels = load_image(path, self.bundle.manifest.image, max_pixels=max_pixels)
        finally:
            model = self.model.result()
        captioner = Captioner.of(model, max_pixels=max_pixels)
        return captioner(
            pixels, beams=beams, length=length, n_best=n_best, avoid=avoid, require=require
        )


def load_first() -> First:
    """The model inside the package, being loaded; one thread, which is the soonest to be ready.

    Its files are read and hashed while numpy is imported, and its graphs opened, outside Python's
    lock, while the caller imports what it needs besides. For programs of their own: numpy gets a
    single thread for its products, of which a caption has none.
    """
    bundle = Bundle(default_bundle())
    artifact = bundle.manifest.artifacts[0]
    files = Ahead(partial(bundle.load, artifact))
    # OpenBLAS starts a thread a core when numpy is imported, and they spin.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from nanocap.runtime.engines import import_ahead
    from nanocap.runtime.engines.providers import Providers
    from nanocap.runtime.loaded import Loaded

    model = Ahead(partial(Loaded, bundle, artifact, 1, Providers(), files))
    import_ahead(artifact.backend)
    return First(bundle, model)
