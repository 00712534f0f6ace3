"""Layer norms without a mean, their scale and shift folded into the linear layer behind them.

A layer norm takes the mean off first. Where all that is ever added to a stream of states has the
mean 0 already, so has the stream, and no norm that reads it need take it off: each linear layer
that writes to the stream loses the mean of its outputs once, at conversion (Ashkboos et al.,
"SliceGPT", 2024, section 3.1). What is left is a root mean square, and its sum is a product with a
vector of ones: all of it is delegated.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Norm(nn.Module):
    """Rows [R, D] of mean 0 over their root mean square: a layer norm before scale and shift."""

    mean: Tensor
    epsilon: Tensor

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        width = norm.normalized_shape[0]
        self.register_buffer("mean", torch.full((1, width), 1 / width))
        self.register_buffer("epsilon", torch.tensor([norm.eps]))

    def forward(self, x_RD: Tensor) -> Tensor:
        return x_RD * torch.rsqrt(F.linear(x_RD * x_RD, self.mean, self.epsilon))


def writes(linear: nn.Linear) -> nn.Linear:
    """The linear layer with the mean of its outputs taken off: it writes to a stream of mean 0."""
    weight, bias = linear.weight.double(), linear.bias.double()
    return _linear(weight - weight.mean(0), bias - bias.mean())


def centred(x: Tensor) -> Tensor:
    """[..., D] with the mean over D taken off."""
    return (x.double() - x.double().mean(-1, keepdim=True)).float().detach()


def reads(norm: nn.LayerNorm, *parts: nn.Linear, scales: Sequence[float] = ()) -> nn.Linear:
    """Linear layers side by side behind a norm, as one layer behind `Norm(norm)`.

    Args:
        scales: of the results of each part; default: all 1.
    """
    scales = scales or [1.0] * len(parts)
    weight = torch.cat([p.weight.double() * s for p, s in zip(parts, scales, strict=True)])
    bias = torch.cat([p.bias.double() * s for p, s in zip(parts, scales, strict=True)])
    return _linear(weight * norm.weight.double(), bias + weight @ norm.bias.double())


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    linear.weight = nn.Parameter(weight.float().detach())
    linear.bias = nn.Parameter(bias.float().detach())
    return linear
