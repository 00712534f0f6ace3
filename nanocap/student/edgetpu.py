"""MobileNetEdgeTPU 1.0: a trunk for teachers, batch norm folded into its convolutions.

Howard and Gupta, "Introducing the next generation of on-device vision models: MobileNetV3 and
MobileNetEdgeTPU" (2019): the early blocks expand with a full convolution, the later ones are
inverted residuals. ImageNet weights: the MLPerf Mobile release (Apache-2.0), dequantized, as a
safetensors file of layers `NN.weight` and `NN.bias` in the network's order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nanocap.errors import NanocapError
from nanocap.student.trunk import PIXEL_MEAN, PIXEL_STD, Convolution

# It was trained on pixels in [-1, 1]; it is given those of the other trunks.
PIXEL_SCALE = PIXEL_STD / 127.5
PIXEL_SHIFT = PIXEL_MEAN / 127.5 - 1


@dataclass(frozen=True)
class Stage:
    """`repeats` blocks; the first one strides and may expand by another factor."""

    repeats: int
    kernel: int
    stride: int
    first_expand: int
    expand: int
    channels: int
    fused: bool  # expansion and spatial convolution in one


STAGES = (
    Stage(4, 3, 2, 8, 4, 32, True),
    Stage(4, 3, 2, 8, 4, 48, True),
    Stage(4, 3, 2, 8, 4, 96, False),
    Stage(4, 3, 1, 8, 4, 96, False),
    Stage(4, 5, 2, 8, 4, 160, False),
    Stage(1, 3, 1, 8, 8, 192, False),
)
STEM_CHANNELS, FIRST_CHANNELS, TOP_CHANNELS = 32, 16, 1280


class Block(nn.Module):
    """Expansion, spatial convolution (one with it where fused), projection; a residual sum."""

    def __init__(self, inputs: int, outputs: int, stage: Stage, first: bool):
        super().__init__()
        stride = stage.stride if first else 1
        hidden = inputs * (stage.first_expand if first else stage.expand)
        layers = (
            [Convolution(inputs, hidden, stage.kernel, stride)]
            if stage.fused
            else [
                Convolution(inputs, hidden, 1),
                Convolution(hidden, hidden, stage.kernel, stride, groups=hidden),
            ]
        )
        self.layers = nn.ModuleList(layers)
        self.project = Convolution(hidden, outputs, 1)
        # the first block of a stage never adds its input, even where the shapes agree
        self.residual = not first

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y = x_BCHW
        for layer in self.layers:
            y = F.relu(layer(y))
        y = self.project(y)
        return x_BCHW + y if self.residual else y


class EdgeTPU(nn.Module):
    """The whole network up to its last map, in one piece: as a trunk at rest."""

    top_channels = TOP_CHANNELS

    def __init__(self) -> None:
        super().__init__()
        self.stem = Convolution(3, STEM_CHANNELS, 3, stride=2)
        self.first = Convolution(STEM_CHANNELS, FIRST_CHANNELS, 1)
        blocks: list[Block] = []
        inputs = FIRST_CHANNELS
        for stage in STAGES:
            for repeat in range(stage.repeats):
                blocks.append(Block(inputs, stage.channels, stage, repeat == 0))
                inputs = stage.channels
        self.blocks = nn.ModuleList(blocks)
        self.head = Convolution(inputs, TOP_CHANNELS, 1)

    def whole(self, pixels_BCHW: Tensor) -> Tensor:
        """Normalized pixels [B, 3, S, S] to the last map [B, 1280, S/32, S/32]."""
        x = F.relu(self.stem(pixels_BCHW * PIXEL_SCALE + PIXEL_SHIFT))
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return F.relu(self.head(x))

    @torch.no_grad()
    def load_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Load the layers of the file in the order in which they run.

        Raises:
            NanocapError: a layer is missing or of another shape.
        """
        ours = [module for module in self.modules() if isinstance(module, Convolution)]
        names = sorted({name.split(".")[0] for name in state}, key=int)
        for name, convolution in zip(names, ours, strict=False):
            weight, bias = state.get(f"{name}.weight"), state.get(f"{name}.bias")
            shape = convolution.weight.shape
            if weight is None or bias is None or weight.shape != shape:
                raise NanocapError(f"layer {name} is not MobileNetEdgeTPU's: expected {[*shape]}")
            assert convolution.bias is not None
            convolution.weight.copy_(weight)
            convolution.bias.copy_(bias)
        if len(names) < len(ours):
            raise NanocapError(f"{len(names)} layers are not MobileNetEdgeTPU's {len(ours)}")
