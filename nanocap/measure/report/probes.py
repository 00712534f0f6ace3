"""Which inner tensors of an artifact's own ONNX graphs tell where it looked.

Nothing is rebuilt or retrained for this: the very bytes that ship are loaded, and tensors that they
compute anyway are added to the graph's outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from nanocap.errors import NanocapError
from nanocap.measure.bench.graphs import Tensor

Floats = npt.NDArray[np.float32]


class NoAttention(NanocapError):
    """The artifact's attention cannot be read; the message says why."""


def assignments(
    model: Any, tensors: Mapping[str, Tensor], places: int, visual_tokens: int, width: int
) -> list[str]:
    """Names of the matrices [1, fewer, tokens] that tokens are multiplied with, first to last.

    Empty where the grid's places are the visual tokens.

    Args:
        model: the graph `begin`.
        places: of the grid that the first of them starts from.
        width: channels of a token.

    Raises:
        NoAttention: they do not lead from `places` to `visual_tokens`.
    """
    by_tokens: dict[int, tuple[str, int]] = {}
    for node in model.graph.node:
        if node.op_type != "MatMul":
            continue
        left, right = (tensors[name].shape for name in node.input)
        if len(left) == 3 and left[1] < left[2] and right == (1, left[2], width):
            # a later product wins: what chooses the groups comes before what forms them
            by_tokens[left[2]] = (node.input[0], left[1])
    names, tokens = [], places
    while tokens != visual_tokens:
        if tokens not in by_tokens:
            raise NoAttention(f"its encoder does not tell how {tokens} tokens became fewer")
        name, tokens = by_tokens[tokens]
        names.append(name)
    return names


def softmaxes(
    model: Any, tensors: Mapping[str, Tensor], visual_tokens: int, layers: int
) -> list[str]:
    """Names of the weights of each layer's cross-attention [images, heads, beams, tokens].

    Args:
        model: the graph `step`.

    Raises:
        NoAttention: it has not one such tensor a layer.
    """
    names = [
        node.output[0]
        for node in model.graph.node
        if node.op_type == "Softmax" and tensors[node.output[0]].shape[-1] == visual_tokens
    ]
    if len(names) != layers:
        raise NoAttention(
            f"its decoder has {len(names)} softmaxes over {visual_tokens} tokens, not one for each"
            f" of its {layers} layers"
        )
    return names
