"""How well texts fit photos, as numbers: to filter, to rank, as a reward and for retrieval."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from nanocap.distill.data.feature_cache import normalize
from nanocap.distill.data.scorer_texts import pad, self_contained
from nanocap.errors import NanocapError, OptionError
from nanocap.image.image import load_image
from nanocap.image.rule import ImageRule
from nanocap.image.source import ImageSource
from nanocap.scorer import Scorer
from nanocap.scorer.image import Embedded
from nanocap.scorer.scorer import late_interaction
from nanocap.student.devices import fastest

BATCH = 64  # photos or texts at once

Images = NDArray[np.uint8] | Sequence[ImageSource]


class ImageTextScorer:
    """A trained scorer with its tokenizer.

    Args:
        scorer: in eval mode.
        tokenizer: the one that it was trained with.
    """

    def __init__(self, scorer: Scorer, tokenizer: Tokenizer):
        self.scorer = scorer.eval()
        self.tokenizer = self_contained(tokenizer, scorer.dimensions.max_pieces)
        self.device = fastest()
        self.scorer.to(self.device)

    @classmethod
    def load(cls, path: str | Path) -> ImageTextScorer:
        """Read the `scorer.safetensors` of a run.

        Raises:
            NanocapError: the file is missing, damaged, or has no tokenizer.
        """
        scorer, metadata = Scorer.load(Path(path))
        if "tokenizer" not in metadata:
            raise NanocapError(f"{path}: has no tokenizer: give the scorer.safetensors of a run")
        return cls(scorer, Tokenizer.from_str(metadata["tokenizer"]))

    def score(self, images: Images, texts: Sequence[str]) -> NDArray[np.float32]:
        """Cosine of each photo with each text.

        Args:
            images: paths, bytes, PIL images or arrays of any size; or uint8 pixels
                [photos, size, size, 3] as the encoder takes them.
            texts: as people write them; an empty one is scored like any other.
        Returns:
            float32 [photos, texts], from -1 to 1.
        Raises:
            ImageError: a photo cannot be read.
            OptionError: no photos, no texts, or pixels of another shape.
        """
        return self.embed_images(images) @ self.embed_texts(texts).T

    def match(self, images: Images, texts: Sequence[str]) -> NDArray[np.float32]:
        """Token-level similarity: the mean over a text's pieces of their best visual token.

        Sees a single wrong word better than `score`, and costs more. Same arguments and shape.
        """
        seen, read = list(self._see(images)), list(self._read(texts))
        with torch.no_grad():
            rows = [
                torch.cat([late_interaction(s.tokens, r.tokens, m)[1] for r, m in read], dim=1)
                for s in seen
            ]
        return torch.cat(rows).cpu().numpy()

    def embed_images(self, images: Images) -> NDArray[np.float32]:
        """Vectors of length 1, [photos, embedding], for an index of photos."""
        return torch.cat([seen.whole for seen in self._see(images)]).cpu().numpy()

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of length 1, [texts, embedding]."""
        return torch.cat([read.whole for read, _ in self._read(texts)]).cpu().numpy()

    @torch.no_grad()
    def _see(self, images: Images) -> Iterable[Embedded]:
        size = self.scorer.dimensions.student.image_size
        if isinstance(images, str | bytes) or not len(images):
            raise OptionError("images must be a list with one photo at least")
        rule = ImageRule(size=size)
        for first in range(0, len(images), BATCH):
            some = images[first : first + BATCH]
            if isinstance(some, np.ndarray):
                pixels = some
            else:
                pixels = np.stack([load_image(image, rule) for image in some])
            if pixels.shape[1:] != (size, size, 3) or pixels.dtype != np.uint8:
                raise OptionError(
                    f"pixels must be uint8 [photos, {size}, {size}, 3],"
                    f" not {pixels.dtype} {list(pixels.shape)}"
                )
            yield self.scorer.image(normalize(pixels).to(self.device))

    @torch.no_grad()
    def _read(self, texts: Sequence[str]) -> Iterable[tuple[Embedded, torch.Tensor]]:
        if isinstance(texts, str) or not len(texts):
            raise OptionError("texts must be a list with one text at least")
        ids = [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]
        for first in range(0, len(ids), BATCH):
            tokens, mask = (t.to(self.device) for t in pad(ids[first : first + BATCH]))
            yield self.scorer.text(tokens, mask), mask
