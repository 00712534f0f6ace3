"""Attention and MLP, written in the operations that every backend takes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MASKED = -1e4  # additive mask; -inf makes NaN in fp16 and on some delegates
NEVER = -1e30  # a log probability that no sum of real ones comes near


def split_heads(x_BNC: Tensor, heads: int) -> Tensor:
    """[B, N, C] to [B, heads, N, C / heads]."""
    batch, tokens, channels = x_BNC.shape
    return x_BNC.reshape(batch, tokens, heads, channels // heads).transpose(1, 2)


def attention_weights(q_BHNC: Tensor, k_BHMC: Tensor, bias: Tensor | None) -> Tensor:
    """Softmax of the scaled products plus `bias` (broadcast over [B, H, N, M])."""
    logits = (q_BHNC * (1 / math.sqrt(q_BHNC.shape[3]))) @ k_BHMC.transpose(2, 3)
    if bias is not None:
        logits = logits + bias.to(logits.dtype)
    if not torch.is_autocast_enabled(logits.device.type):
        return torch.softmax(logits, dim=3)
    # autocast would widen the whole matrix before and narrow it after: a fifth of a training step
    with torch.autocast(logits.device.type, enabled=False):
        return torch.softmax(logits, dim=3)


def attend(q_BNC: Tensor, k_BMC: Tensor, v_BMC: Tensor, heads: int, bias: Tensor | None) -> Tensor:
    """Multi-head attention of N queries over M keys, [B, N, C]."""
    weights = attention_weights(split_heads(q_BNC, heads), split_heads(k_BMC, heads), bias)
    mixed = weights @ split_heads(v_BMC, heads)
    return mixed.transpose(1, 2).reshape(q_BNC.shape)


class MLP(nn.Module):
    """Two linear layers around a GELU."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.up = nn.Linear(width, inner)
        self.down = nn.Linear(inner, width)

    def forward(self, x_BNC: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x_BNC)))
