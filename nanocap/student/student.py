"""The student: encoder and decoder, and the one file that holds both."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from nanocap.student.decoder import Decoder
from nanocap.student.dimensions import Dimensions
from nanocap.student.encoder import Encoder
from nanocap.student.file import load_module, save_module

INITIAL_DEVIATION = 0.02


class Student(nn.Module):
    """A captioner of NanoVLM scale.

    Args:
        dimensions: all that is needed to rebuild it around its weights.
        dropout: in the decoder, while training.
    """

    def __init__(self, dimensions: Dimensions, dropout: float = 0.0):
        super().__init__()
        self.dimensions = dimensions
        self.encoder = Encoder(dimensions)
        self.decoder = Decoder(dimensions, dropout)
        self._initialize()

    def forward(self, pixels_BCHW: Tensor, tokens_BKT: Tensor) -> Tensor:
        """Normalized pixels and K captions a photo to logits [B, K, T, vocabulary]."""
        return self.decoder(tokens_BKT, self.decoder.cross(self.encoder(pixels_BCHW)))

    def save(self, path: Path, metadata: dict[str, str] | None = None) -> None:
        """Write weights and dimensions as one safetensors file, whole or not at all."""
        save_module(path, self, self.dimensions.to_dict(), metadata)

    @classmethod
    def load(cls, path: Path, prefix: str = "") -> tuple[Student, dict[str, str]]:
        """Read what `save` wrote: the student in eval mode, and the file's metadata.

        Args:
            prefix: read only the tensors whose names start so (a training checkpoint holds several
                copies of the weights).
        Raises:
            NanocapError: the file is missing, damaged, or no student's checkpoint.
        """
        return load_module(
            path, lambda d: cls(Dimensions.from_dict(d)), "checkpoint", "student", prefix
        )

    def _initialize(self) -> None:
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=INITIAL_DEVIATION)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
            if isinstance(module, nn.Linear) and name.endswith(("out", "down")):
                # residual branches start small, so that depth does not blow up the sum
                layers = self.dimensions.encoder_blocks + self.dimensions.decoder_layers
                nn.init.normal_(module.weight, std=INITIAL_DEVIATION / (2 * layers) ** 0.5)
        nn.init.normal_(self.encoder.positions, std=INITIAL_DEVIATION)
        nn.init.normal_(self.decoder.positions, std=INITIAL_DEVIATION)


@torch.no_grad()
def count_parameters(student: nn.Module) -> int:
    """Parameters, tied ones once."""
    return sum(parameter.numel() for parameter in student.parameters())
