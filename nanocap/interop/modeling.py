"""The student's encoder as a model of transformers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from nanocap.errors import ImageError
from nanocap.interop.configuration import NanocapConfig
from nanocap.student.dimensions import Dimensions
from nanocap.student.encoder import Encoder
from nanocap.student.trunk import PIXEL_MEAN, PIXEL_STD


class NanocapEncoder(PreTrainedModel):  # type: ignore[misc]  # transformers is not followed
    """Pixels to the visual tokens that the decoder attends to."""

    config_class = NanocapConfig
    base_model_prefix = "nanocap"
    main_input_name = "pixel_values"

    def __init__(self, config: NanocapConfig) -> None:
        super().__init__(config)
        self.encoder = Encoder(Dimensions.from_dict(config.dimensions))
        self.post_init()

    def forward(self, pixel_values: Tensor, **kwargs: Any) -> BaseModelOutput:
        """Visual tokens [B, N, D] as `last_hidden_state`.

        Args:
            pixel_values: [B, 3, S, S] on the scale 0 to 255, as `NanocapImageProcessor` gives them.
                They are normalized here, as in every graph of nanocap.
            kwargs: what a VisionEncoderDecoder passes on: no attentions or hidden states are kept.
        Raises:
            ImageError: the pixels are of another size.
        """
        size = self.config.image_size
        tracing = torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
        if not tracing and tuple(pixel_values.shape[2:]) != (size, size):
            raise ImageError(
                f"pixel_values of shape {list(pixel_values.shape)}: this model takes {size} by"
                f" {size} pixels; use its image processor"
            )
        x_BCHW = (pixel_values.to(self.dtype) - PIXEL_MEAN) / PIXEL_STD
        return BaseModelOutput(last_hidden_state=self.encoder(x_BCHW).tokens)
