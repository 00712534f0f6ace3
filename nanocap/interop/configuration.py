"""The encoder's part of a folder's `config.json`."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig

from nanocap.student.dimensions import Dimensions


class NanocapConfig(PretrainedConfig):  # type: ignore[misc]  # transformers is not followed
    """What rebuilds a student's encoder.

    Args:
        dimensions: the student's, as `Dimensions.to_dict` gives them; default: nano-s.
        kwargs: what every configuration of transformers takes.
    Raises:
        NanocapError: the dimensions do not fit together.
    """

    model_type = "nanocap"

    def __init__(self, dimensions: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        student = Dimensions.from_dict(dimensions or {})
        self.dimensions = student.to_dict()
        # by the names under which transformers and Optimum look them up
        self.hidden_size, self.image_size = student.width, student.image_size
        self.num_attention_heads, self.num_hidden_layers = student.heads, student.encoder_blocks
        self.num_channels = 3
