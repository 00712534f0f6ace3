"""Depthwise convolution on small maps as one matrix product a channel, for training on CPUs.

A CPU's backward pass of a depthwise convolution costs many times its arithmetic. On a map of 14x14
or less each channel's convolution is a matrix of a few hundred rows that a batched product applies:
more multiplications, but of the kind that the machine is fast at (measured at 64 photos, forward
and backward; bfloat16 on two AVX-512 cores: 138 to 15 ms at 14x14 with stride 2, 36 to 8 ms at 7x7;
float32 on two AVX2 cores: 115 to 68 ms and 163 to 78 ms, but 174 to 227 ms at 14x14 with stride 1).
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

LARGEST_SIDE = 14  # pixels of a map; the matrices grow with its fourth power
LARGEST_IN_FLOAT32 = 7  # of the map that comes out


def pays(x_BCHW: Tensor, stride: int) -> bool:
    """Whether `convolve` is the faster way for this map, here and now."""
    side = max(x_BCHW.shape[2:])
    most = LARGEST_SIDE
    if not torch.is_autocast_enabled("cpu"):
        most = min(most, stride * LARGEST_IN_FLOAT32)
    return side <= most and x_BCHW.device.type == "cpu"


def convolve(
    x_BCHW: Tensor, weight_C1KK: Tensor, bias_C: Tensor, stride: int, before: int
) -> Tensor:
    """The same as a depthwise `conv2d` on a zero-padded map, [B, C, H / stride, W / stride].

    Args:
        weight_C1KK: one odd, square kernel a channel.
        before: zeros to the left and above; to the right and below there are as many as needed.
    """
    batch, channels, height, width = x_BCHW.shape
    kernel = weight_C1KK.shape[2]
    places = _places(height, width, kernel, stride, before)
    taps = weight_C1KK.reshape(channels, kernel * kernel)
    matrix = (taps @ places).reshape(channels, height * width, -1)
    y = torch.bmm(x_BCHW.flatten(2).transpose(0, 1), matrix).transpose(0, 1)
    y = y + bias_C.to(y.dtype)[:, None]
    return y.reshape(batch, channels, height // stride, width // stride)


@lru_cache(maxsize=8)
def _places(height: int, width: int, kernel: int, stride: int, before: int) -> Tensor:
    """[taps, inputs * outputs]: one where a tap of the kernel joins an input to an output."""

    def line(size: int) -> Tensor:
        tap, source, target = torch.meshgrid(
            torch.arange(kernel), torch.arange(size), torch.arange(size // stride), indexing="ij"
        )
        return (source == target * stride + tap - before).float()

    joined = torch.einsum("ayo,bxp->abyxop", line(height), line(width))
    return joined.reshape(kernel * kernel, -1)
