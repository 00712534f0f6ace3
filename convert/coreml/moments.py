"""What goes into each layer while photos are captioned: which weights matter, which go together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from nanocap.convert.parity import EagerEngine
from nanocap.convert.probe import Probe, batches, rollout
from nanocap.student import Student
from nanocap.student.search import Search

ROWS = 1024  # of a layer's input, from one batch: neighbouring places of a map say much the same

Moments = dict[str, Tensor]  # by layer: second moments of its input, float64 [inputs, inputs]


def input_moments(
    student: Student, search: Search, probe: Probe, pixels: npt.NDArray[np.uint8]
) -> Moments:
    """Mean of `x x^T` over the inputs of every linear layer and 1x1 convolution.

    Args:
        probe: what greedy captioning has to know; its own photos are not used.
        pixels: photos to caption, uint8 [photos, size, size, 3].
    """
    sums: Moments = {}
    rows: dict[str, int] = {}

    def watch(name: str) -> Callable[..., None]:
        def add(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            x = inputs[0].movedim(1, -1) if isinstance(module, nn.Conv2d) else inputs[0]
            x = x.reshape(-1, x.shape[-1])
            x = x[:: -(-len(x) // ROWS)]
            sums[name] = sums.get(name, 0) + (x.T @ x).double()
            rows[name] = rows.get(name, 0) + len(x)

        return add

    hooks = [
        module.register_forward_hook(watch(name))
        for name, module in student.named_modules()
        if is_product(module)
    ]
    try:
        for batch in batches(pixels):
            for _ in rollout(EagerEngine(student, search), probe, batch):
                pass
    finally:
        for hook in hooks:
            hook.remove()
    return {name: total / rows[name] for name, total in sums.items()}


def is_product(module: nn.Module) -> bool:
    """Whether a layer is one matrix product: a linear layer or a 1x1 convolution."""
    if isinstance(module, nn.Conv2d):
        return module.kernel_size == (1, 1) and module.groups == 1
    return isinstance(module, nn.Linear)
