"""Tables whose rows are looked up, which XNNPACK does not do: they run beside the delegate."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BYTE = 127  # the largest int8
NIBBLE = 7  # the largest of 4 bits
BLOCK = 32  # weights of 4 bits a scale
SMALLEST = 1e-12  # of a scale: a row may be all zeros

Table: TypeAlias = Callable[[Tensor], nn.Module]
"""Makes of rows [V, D] a module that takes int64 [R] and gives rows [R, D]."""


class FloatTable(nn.Module):
    """Rows [V, D] by their index."""

    rows: Tensor

    def __init__(self, rows_VD: Tensor) -> None:
        super().__init__()
        self.register_buffer("rows", rows_VD)

    def forward(self, index_R: Tensor) -> Tensor:
        return F.embedding(index_R, self.rows)


class ByteTable(nn.Module):
    """The same in int8, with a scale a row."""

    rows: Tensor
    scales: Tensor

    def __init__(self, rows_VD: Tensor) -> None:
        super().__init__()
        scales = (rows_VD.abs().amax(1, keepdim=True) / BYTE).clamp(min=SMALLEST)
        self.register_buffer("scales", scales)
        self.register_buffer("rows", (rows_VD / scales).round().to(torch.int8))

    def forward(self, index_R: Tensor) -> Tensor:
        return F.embedding(index_R, self.rows).float() * F.embedding(index_R, self.scales)


class NibbleTable(nn.Module):
    """The same in 4 bits, with a scale a block of neighbours; the first half of a row lies in the
    low bits of its bytes, the second in the high ones."""

    rows: Tensor
    scales: Tensor
    middle: Tensor
    sixteen: Tensor
    sixteenth: Tensor

    def __init__(self, rows_VD: Tensor) -> None:
        super().__init__()
        rows, self.width = rows_VD.shape
        blocks = rows_VD.reshape(rows, -1, min(BLOCK, self.width))
        scales = (blocks.abs().amax(2) / NIBBLE).clamp(min=SMALLEST)
        whole = (blocks / scales.unsqueeze(2)).round().reshape(rows, self.width) + NIBBLE + 1
        low, high = whole.to(torch.uint8).chunk(2, 1)
        self.register_buffer("rows", low | (high << 4))
        self.register_buffer("scales", scales)
        for name, value in {"middle": NIBBLE + 1.0, "sixteen": 16.0, "sixteenth": 1 / 16}.items():
            self.register_buffer(name, torch.tensor([value]))

    def forward(self, index_R: Tensor) -> Tensor:
        packed, scales = F.embedding(index_R, self.rows).float(), F.embedding(index_R, self.scales)
        high = torch.floor(packed * self.sixteenth)  # the delegate has no shift
        whole = torch.cat([packed - high * self.sixteen, high], 1) - self.middle
        blocks = whole.reshape(-1, scales.shape[1], self.width // scales.shape[1])
        return (blocks * scales.unsqueeze(2)).reshape(-1, self.width)
