"""Where a captioner looked when it chose each piece of a caption, read off the files that ship.

The caption's own pieces are fed to the decoder again, and the weights of its cross-attention read
at the step that chose each. Weights on visual tokens are spread over the places of the photo's
grid by the encoder's own assignments of this very photo, so that they still sum to one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np

from nanocap.bundle import Bundle
from nanocap.bundle.manifest import Artifact
from nanocap.errors import MissingExtraError
from nanocap.image.image import load_image
from nanocap.image.source import ImageSource
from nanocap.measure.report.probes import Floats, NoAttention, decoder_probe, encoder_probe

STRIDE = 16  # pixels a side of one place, as in `nanocap.student.dimensions`
TOLERANCE = 1e-3
CROSS, CACHE = ("cross_keys", "cross_values"), ("new_keys", "new_values")


class Attention:
    """The attention of one artifact.

    Args:
        bundle: an opened bundle.
        artifact: its name.

    Raises:
        BundleError: the bundle is altered or unsafe.
        NoAttention: the artifact does not tell.
    """

    def __init__(self, bundle: Bundle, artifact: str) -> None:
        self.manifest = bundle.manifest
        chosen = next(one for one in self.manifest.artifacts if one.name == artifact)
        if chosen.backend != "onnx":
            raise NoAttention(f"artifact {artifact}: only ONNX graphs tell, not {chosen.backend}")
        files = bundle.load(chosen)
        try:
            self._open(chosen, {role: files[path] for role, path in chosen.files.items()})
        except NoAttention as error:
            raise NoAttention(f"artifact {artifact}: {error}") from None
        except MissingExtraError as error:
            raise NoAttention(str(error)) from None

    def _open(self, artifact: Artifact, graphs: dict[str, bytes]) -> None:
        sizes, image_size = self.manifest.sizes, self.manifest.image.size
        self.side = image_size // STRIDE
        cross = (sizes.layers, 1, artifact.visual_tokens, sizes.cross_width)
        self._cache = (sizes.layers, 1, sizes.max_tokens, sizes.cache_width)
        shapes = {"tokens": (1, 1), "position": (1,), "cross_keys": cross, "cross_values": cross}
        shapes |= {"keys": self._cache, "values": self._cache}
        self._encoder = encoder_probe(
            graphs["encoder"], image_size, self.side**2, artifact.visual_tokens, sizes.width
        )
        self._decoder = decoder_probe(
            graphs["decoder"], shapes, artifact.visual_tokens, sizes.layers
        )

    def maps(self, photo: ImageSource, ids: Sequence[int], length: str | None = None) -> Floats:
        """What was looked at when each of `ids` was chosen.

        Args:
            ids: of a caption, without control tokens and without the end.
            length: that it was asked for with; default: the bundle's.
        Returns:
            [pieces, side, side], each map of non-negative weights that sum to one; mean over the
            layers and heads of the decoder.
        Raises:
            ImageError: the photo cannot be read.
            NoAttention: the encoder's tensors are no assignments.
        """
        pixels = load_image(photo, self.manifest.image)[None]
        cross, matrices = self._encoder.run(CROSS, {"pixels": pixels})
        for matrix in matrices:
            if matrix.min() < 0 or np.abs(matrix.sum(-1) - 1).max() > TOLERANCE:
                raise NoAttention("what its encoder multiplies the tokens with is no mean of them")
        start = np.eye(self.side**2, dtype=np.float32)
        spread = reduce(lambda known, matrix: matrix[0] @ known, matrices, start)  # [N, places]
        maps: Floats = self._weights(cross, ids, length) @ spread
        return maps.reshape(-1, self.side, self.side)

    def _weights(self, cross: Sequence[Floats], ids: Sequence[int], length: str | None) -> Floats:
        """Weights [pieces, visual tokens]."""
        controls, defaults = self.manifest.controls, self.manifest.decoding
        prefix = (controls.quality[defaults.quality], controls.length[length or defaults.length])
        cache: Sequence[Floats] = [np.zeros(self._cache, np.float32) for _ in CACHE]
        rows = []
        # the step that is fed a piece chooses the next: the last piece need not be fed
        for position, token in enumerate([*prefix, *ids][:-1]):
            feeds = {
                "tokens": np.array([[token]], np.int64),
                "position": np.array([position], np.int64),
                **dict(zip(CROSS, cross, strict=True)),
                **dict(zip(("keys", "values"), cache, strict=True)),
            }
            cache, layers = self._decoder.run(CACHE, feeds)
            if position >= len(prefix) - 1:
                rows.append(np.mean([layer.mean(axis=(0, 1, 2)) for layer in layers], axis=0))
        return np.stack(rows) if rows else np.zeros((0, cross[0].shape[2]), np.float32)
