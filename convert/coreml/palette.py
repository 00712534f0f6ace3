"""Weights of few values: palettes by weighted k-means, and roundings that make up for each other.

Core ML of iOS 17 stores a tensor as indices into one palette of 2, 4, 16, 64 or 256 fp16 values.
coremltools' own k-means looks at the weights alone. Here a weight counts by the mean square of what
it is multiplied with, and the error of each input's weights is passed on to the inputs that are not
yet rounded (GPTQ, Frantar et al. 2023, over a palette instead of a grid).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from nanocap.convert.coreml.moments import Moments
from nanocap.student import Student

LEAST = 2048  # weights; with fewer, a palette saves nothing worth a rounding
LARGE = 100_000  # weights; above, a convolution is one of the few that hold most of the trunk
ITERATIONS = 100
DAMPING = 0.01  # of the mean diagonal: calibration sees fewer rows than some layers have inputs

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bits:
    """Bits an index, by kind of layer; None leaves fp16.

    Batch norm is folded into the trunk's convolutions, so that one palette has to serve channels
    of very different scale, the more so in the early ones, which are small.
    """

    depthwise: int | None  # and the first convolution
    small: int  # convolutions of at most `LARGE` weights
    large: int
    linear: int  # and the embedding

    def of(self, layer: nn.Module) -> int | None:
        """Those of one layer; None too if it has no weights, or too few."""
        if not isinstance(layer, nn.Conv2d | nn.Linear | nn.Embedding):
            return None
        if layer.weight.numel() < LEAST:
            return None
        if not isinstance(layer, nn.Conv2d):
            return self.linear
        if layer.kernel_size != (1, 1):
            return self.depthwise
        return self.small if layer.weight.numel() <= LARGE else self.large

    def weights(self, student: Student) -> list[Tensor]:
        """Those that get a palette."""
        chosen = (layer for layer in student.modules() if self.of(layer) is not None)
        return [layer.get_parameter("weight") for layer in chosen]


PALETTES = {"pal8": Bits(None, 8, 8, 8), "pal4": Bits(8, 8, 4, 4)}


def palettized(student: Student, bits: Bits, moments: Moments) -> Student:
    """A copy of the student in which every such weight is one of 2^bits fp16 values of its layer.

    Args:
        moments: of the student's layers, see `input_moments`.
    """
    student = copy.deepcopy(student).eval()
    for name, layer in student.named_modules():
        count = bits.of(layer)
        if count is not None:
            weight = layer.get_parameter("weight")
            weight.data = few_values(weight.detach(), 1 << count, moments.get(name))
    return student


def few_values(weight: Tensor, count: int, moments: Tensor | None) -> Tensor:
    """`weight` in at most `count` different fp16 values, as float32.

    Args:
        weight: [outputs, inputs, ...].
        moments: [inputs, inputs] of what it is multiplied with; None: all weights count the same,
            and each is rounded for itself.
    """
    matrix = weight.double().flatten(1)
    counts = torch.ones(1) if moments is None else moments.diagonal()
    counts = (counts + 1e-6 * counts.max()).expand_as(matrix)
    palette = torch.from_numpy(cluster(matrix.numpy().ravel(), counts.numpy().ravel(), count))
    if moments is None:
        rounded = _nearest(matrix, palette)
    else:
        rounded = _passing_errors_on(matrix, palette, moments)
    return rounded.reshape(weight.shape).float()


def cluster(values: Doubles, counts: Doubles, clusters: int) -> Doubles:
    """Ascending centres of weighted k-means in one dimension, rounded to fp16.

    Deterministic: the first centres lie at equal shares of the cube root of the density, which is
    where many centres end (Panter and Dite, 1951).
    """
    distinct, where = np.unique(values.astype(np.float16).astype(np.float64), return_inverse=True)
    if len(distinct) <= clusters:
        return distinct
    mass = np.bincount(where, counts)
    total = np.concatenate([[0.0], mass.cumsum()])
    moment = np.concatenate([[0.0], (mass * distinct).cumsum()])
    density, edges = np.histogram(distinct, 2048, weights=mass)
    share = np.cumsum(np.cbrt(density))
    middle = (np.arange(clusters) + 0.5) / clusters * share[-1]
    centres = np.interp(middle, share, (edges[:-1] + edges[1:]) / 2)
    for _ in range(ITERATIONS):
        cuts = np.searchsorted(distinct, (centres[1:] + centres[:-1]) / 2)
        ends = np.concatenate([[0], cuts, [len(distinct)]])
        inside = np.diff(total[ends])
        means = np.diff(moment[ends]) / np.where(inside > 0, inside, 1)
        moved = np.sort(np.where(inside > 0, means, centres))
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres.astype(np.float16).astype(np.float64)


def _nearest(values: Tensor, palette: Tensor) -> Tensor:
    return palette[torch.bucketize(values.contiguous(), (palette[1:] + palette[:-1]) / 2)]


def _passing_errors_on(matrix: Tensor, palette: Tensor, moments: Tensor) -> Tensor:
    """GPTQ: inputs in falling order of their mean square; the later ones absorb what is lost."""
    inputs = matrix.shape[1]
    order = moments.diagonal().argsort(descending=True, stable=True)
    damped = moments + torch.eye(inputs) * (DAMPING * moments.diagonal().mean() + 1e-12)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped[order][:, order]))
    upper = torch.linalg.cholesky(inverse, upper=True)
    left, rounded = matrix[:, order], torch.empty_like(matrix)
    for place, index in enumerate(order.tolist()):
        rounded[:, index] = _nearest(left[:, place], palette)
        error = (left[:, place] - rounded[:, index]) / upper[place, place]
        left[:, place + 1 :] -= error[:, None] * upper[place, place + 1 :]
    return rounded
