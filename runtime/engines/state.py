"""The state of a search: named arrays, whose axes the artifact's entry in the manifest names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from nanocap.bundle.manifest import StateTensor

Ints: TypeAlias = npt.NDArray[np.int64]
State: TypeAlias = dict[str, npt.NDArray[Any]]


def fits(state: State, tensors: Sequence[StateTensor], images: int, beams: int) -> bool:
    """Whether a state as it begins, of so many images and beams, is what `tensors` list."""
    axes = {"images": images, "beams": beams, "rows": images * beams, "places": 0}
    return all(
        each.name in state
        and state[each.name].shape == tuple(axes.get(str(size), size) for size in each.shape)
        for each in tensors
    )


def take(state: State, tensors: Sequence[StateTensor], images: Ints) -> State:
    """The state of some of the images, in the order of `images`, int64 [B']."""
    beams = state["tokens"].shape[1]
    rows = (images[:, None] * beams + np.arange(beams)).ravel()
    taken = dict(state)
    for tensor in tensors:
        axis = tensor.image_axis
        if axis is not None:
            places = rows if tensor.shape[axis] == "rows" else images
            taken[tensor.name] = state[tensor.name].take(places, axis)
    return taken


def joined(states: Sequence[State], tensors: Sequence[StateTensor]) -> State:
    """The states of several images as one, for engines that take an image a call."""
    if len(states) == 1:
        return states[0]
    together = dict(states[0])
    for tensor in tensors:
        if tensor.image_axis is not None:
            parts = [state[tensor.name] for state in states]
            together[tensor.name] = np.concatenate(parts, tensor.image_axis)
    if "logits" in together:
        together["logits"] = np.concatenate([state["logits"] for state in states])
    return together
