"""Depthwise convolution by matrices against the plain one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from nanocap.student import depthwise
from nanocap.student.trunk import Convolution


@settings(max_examples=40, deadline=None)
@given(
    half=st.integers(1, 5),
    width=st.integers(1, 5),
    kernel=st.sampled_from([3, 5]),
    stride=st.sampled_from([1, 2]),
    seed=st.integers(0, 1000),
)
def test_equals_a_convolution_with_its_gradients(
    half: int, width: int, kernel: int, stride: int, seed: int
) -> None:
    torch.manual_seed(seed)
    x = torch.randn(2, 3, 2 * half, 2 * width, requires_grad=True)
    weight = torch.randn(3, 1, kernel, kernel, requires_grad=True)
    bias = torch.randn(3, requires_grad=True)
    before, total = (kernel - stride) // 2, kernel - stride
    padded = F.pad(x, (before, total - before, before, total - before))
    plain = F.conv2d(padded, weight, bias, stride=stride, groups=3)
    ours = depthwise.convolve(x, weight, bias, stride, before)
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)
    wanted = torch.randn_like(plain)
    for got, expected in zip(
        torch.autograd.grad(ours, (x, weight, bias), wanted),
        torch.autograd.grad(plain, (x, weight, bias), wanted),
        strict=True,
    ):
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("narrow", [False, True])
def test_training_takes_it_and_agrees(
    stride: int, narrow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    side = 14 if narrow else 7 * stride
    layer, x = Convolution(8, 8, 5, stride, groups=8), torch.randn(2, 8, side, side)
    taken = []
    convolve = depthwise.convolve
    monkeypatch.setattr(depthwise, "convolve", lambda *args: taken.append(1) or convolve(*args))
    with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
        y = layer.train()(x)
        assert taken
        layer(torch.randn(1, 8, 2 * side, 2 * side))  # not for a large map
        layer.eval()(x)  # and not where nothing is trained
    assert len(taken) == 1
    assert y.dtype == (torch.bfloat16 if narrow else torch.float32)
    near = 0.05 if narrow else 1e-5
    torch.testing.assert_close(y.float(), layer(x), rtol=near, atol=near)
