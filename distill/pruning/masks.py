"""Masks on the channels of a student in training: searched by gradient, shrunk step by step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nanocap.distill.pruning.axes import Kept, Site, find_axes, layer_of
from nanocap.distill.pruning.budget import check_keep, choose, keep_best
from nanocap.student import Student


class Masks:
    """One mask a channel, on a student in training.

    A step has a share of the budget that grows from nothing to all (a root of a cosine, as in
    UPop). What would go for this share is masked by what the share leaves, so that what goes
    shrinks to nothing in the same steps in which it is found. How much a channel matters is the sum
    over all steps of the size of its mask's gradient; UPop sums the gradients with their signs,
    which cancel in a student that has been trained.

    Mask and importance are a parameter and a buffer of the masked layer: the student's checkpoint
    holds them, and several processes share their gradients as they share all others.

    Args:
        keep: share of what may go that stays.
    Raises:
        OptionError: `keep` is no share, or too small.
    """

    def __init__(self, student: Student, keep: float):
        self.student, self.keep = student, keep
        self.axes = find_axes(student.dimensions)
        check_keep(self.axes, keep)
        self.sites = [site for axis in self.axes for site in axis.sites]
        for site in self.sites:
            layer = layer_of(student, site.masked)
            ones = torch.ones(len(layer_of(student, site.maker).bias), device=layer.weight.device)
            layer.register_parameter("mask", nn.Parameter(ones))
            layer.register_buffer("importance", torch.zeros_like(ones))
            # by hooks, so that the student's own code knows nothing of masks
            if site.keys:
                layer.register_forward_hook(_mask_output)
            else:
                layer.register_forward_pre_hook(_mask_input)

    @torch.no_grad()
    def shrink(self, step: int, steps: int) -> None:
        """Set the masks for a step: all ones in the first, zeros and ones in the last."""
        share = progress(step, steps)
        importance = {site.masked: self._tensor(site, "importance") for site in self.sites}
        counts = choose(self.axes, importance, 1 - (1 - self.keep) * share)
        kept = keep_best(self.axes, importance, counts)
        for site in self.sites:
            stays = kept[site.masked].to(torch.float32)
            self._tensor(site, "mask").copy_(stays + (1 - stays) * (1 - share))

    @torch.no_grad()
    def collect(self) -> None:
        """Add the size of the masks' gradients to the importance, and drop them."""
        for site in self.sites:
            mask = self._tensor(site, "mask")
            assert mask.grad is not None
            self._tensor(site, "importance").add_(mask.grad.abs())
            mask.grad = None

    def fold(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A student's weights with the masks multiplied into them."""
        values = {site.masked: self._tensor(site, "mask").detach() for site in self.sites}
        return fold(self.sites, values, state)

    def kept(self) -> Kept:
        """The channels whose masks have not begun to shrink."""
        return {site.masked: self._tensor(site, "mask").detach() == 1 for site in self.sites}

    def _tensor(self, site: Site, name: str) -> Tensor:
        tensor = getattr(layer_of(self.student, site.masked), name)
        assert isinstance(tensor, Tensor)
        return tensor


def progress(step: int, steps: int) -> float:
    """Share of the budget that a step of a stage has, from 0 in the first to 1 in the last."""
    done = step / (steps - 1) if steps > 1 else 1.0
    return math.sqrt((1 - math.cos(math.pi * done)) / 2)


def fold(
    sites: list[Site], masks: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Weights that do what masks [heads * channels], by `Site.masked`, do beside `state`."""
    folded = dict(state)
    for site in sites:
        mask = masks[site.masked]
        weight, bias = f"{site.masked}.weight", f"{site.masked}.bias"
        if site.keys:
            folded[weight] = state[weight] * mask.unsqueeze(1)
            folded[bias] = state[bias] * mask
        else:
            folded[weight] = state[weight] * mask
    return folded


def _mask_output(layer: nn.Linear, inputs: Any, output: Tensor) -> Tensor:
    return output * layer.mask.to(output.dtype)  # type: ignore[operator]


def _mask_input(layer: nn.Linear, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0] * layer.mask.to(inputs[0].dtype),)  # type: ignore[operator]
