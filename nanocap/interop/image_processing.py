"""nanocap's image rule as an image processor of transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor

from nanocap.image.image import load_image
from nanocap.image.rule import ImageRule
from nanocap.image.source import ImageSource


class NanocapImageProcessor(BaseImageProcessor):  # type: ignore[misc]  # transformers is not followed
    """Images to the pixels that the runtime would take, value for value.

    Args:
        rule: of the student, as a dictionary of `ImageRule`'s fields; default: nano-s.
        kwargs: what every image processor of transformers takes.
    """

    model_input_names = ("pixel_values",)

    def __init__(self, rule: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rule = dict(rule or {})

    def preprocess(
        self,
        images: ImageSource | Sequence[ImageSource],
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """`pixel_values` float32 [images, 3, size, size] on the scale 0 to 255.

        Args:
            images: one image or a list of them, each anything that `nanocap.image.image` reads.
            return_tensors: `pt` or `np`; default: a numpy array.
            kwargs: refused by none of the callers, and of no effect: the rule is the student's.
        Raises:
            ImageError: an image cannot be read.
        """
        rule = ImageRule(**{k: _tupled(v) for k, v in self.rule.items()})
        several: Sequence[Any] = images if isinstance(images, list | tuple) else [images]
        pixels_BHWC = np.stack([load_image(image, rule) for image in several])
        pixels_BCHW = np.ascontiguousarray(pixels_BHWC.transpose(0, 3, 1, 2), np.float32)
        return BatchFeature({"pixel_values": pixels_BCHW}, tensor_type=return_tensors)


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
