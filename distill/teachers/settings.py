"""How a teacher is run: its prompt, its device and its arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from nanocap.errors import OptionError
from nanocap.student.devices import fastest

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Settings:
    """What a user may say about any teacher; raises OptionError for an unknown dtype."""

    prompt: str | None = None  # instead of the one that its family is asked with
    device: str = "auto"  # torch's name for it, such as `cuda:1`; `auto` is CUDA if there is any
    dtype: str = "auto"  # `fp32`, `bf16` or `fp16`; `auto` is what the device is good at
    merge: float = 1.0  # share of its visual tokens that a LLaVA keeps

    def __post_init__(self) -> None:
        if self.dtype not in ("auto", *DTYPES):
            raise OptionError(f"dtype {self.dtype!r} is not one of auto, {', '.join(DTYPES)}")

    def on_device(self) -> torch.device:
        """The device. Raises OptionError where this machine, or build of torch, has none such."""
        if self.device == "auto":
            return fastest()
        try:
            device = torch.device(self.device)
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise OptionError(f"device {self.device!r}: torch has none here; try cpu") from error
        return device

    def weights_dtype(self, device: torch.device) -> torch.dtype:
        """What weights are kept in: by default bf16 on CUDA, where it is fast, else fp32."""
        if self.dtype != "auto":
            return DTYPES[self.dtype]
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if fast else torch.float32


DEFAULTS = Settings()
