"""Inner tensors of an artifact's own ONNX graphs: which they are, and sessions that give them.

Nothing is rebuilt or retrained for this: the very bytes that ship are loaded, and tensors that they
compute anyway are added to the graph's outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nanocap.cores import available_cores
from nanocap.errors import NanocapError, one_line
from nanocap.measure.bench.peaks import open_session
from nanocap.measure.bench.shapes import Shape, Tensor, import_onnx, infer_tensors

Floats = npt.NDArray[np.float32]


class NoAttention(NanocapError):
    """The artifact's attention cannot be read; the message says why."""


@dataclass(frozen=True)
class Probe:
    """A graph with more outputs than it was written with."""

    session: Any  # of ONNX Runtime
    inner: tuple[str, ...]  # names of the tensors that were added, in their order

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
        """The graph's own `outputs`, and the inner tensors."""
        found = self.session.run([*outputs, *self.inner], dict(feeds))
        return found[: len(outputs)], found[len(outputs) :]


def encoder_probe(graph: bytes, size: int, places: int, visual_tokens: int, width: int) -> Probe:
    """The encoder, with the assignment matrices that lead from the grid to the visual tokens.

    Args:
        size: side of the input, in pixels.
        places: of the grid that the first of them starts from.
        width: channels of a token.
    Raises:
        NoAttention: it has no such matrices.
    """
    model = import_onnx().load_model_from_string(graph)
    tensors = infer_tensors(model, {"pixels": (1, size, size, 3)})
    return _open(model, assignments(model, tensors, places, visual_tokens, width))


def assignments(
    model: Any, tensors: Mapping[str, Tensor], places: int, visual_tokens: int, width: int
) -> list[str]:
    """Names of the matrices [1, fewer, tokens] that tokens are multiplied with, first to last.

    Empty where the grid's places are the visual tokens.

    Raises:
        NoAttention: they do not lead from `places` to `visual_tokens`.
    """
    by_tokens: dict[int, tuple[str, int]] = {}
    for node in model.graph.node:
        if node.op_type != "MatMul":
            continue
        left, right = (tensors[n].shape if n in tensors else () for n in node.input)
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


def decoder_probe(
    graph: bytes, shapes: Mapping[str, Shape], visual_tokens: int, layers: int
) -> Probe:
    """The decoder, with the weights of each layer's cross-attention [images, heads, beams, tokens].

    Args:
        shapes: of each input.
    Raises:
        NoAttention: it has not one such tensor a layer.
    """
    model = import_onnx().load_model_from_string(graph)
    tensors = infer_tensors(model, shapes)
    names = [
        node.output[0]
        for node in model.graph.node
        if node.op_type == "Softmax"
        and node.output[0] in tensors
        and tensors[node.output[0]].shape[-1] == visual_tokens
    ]
    if len(names) != layers:
        raise NoAttention(
            f"its decoder has {len(names)} softmaxes over {visual_tokens} tokens, not one for each"
            f" of its {layers} layers"
        )
    return _open(model, names)


def _open(model: Any, names: Sequence[str]) -> Probe:
    onnx = import_onnx()
    known = {output.name for output in model.graph.output}
    for name in names:
        if name not in known:
            model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    try:
        session = open_session(model.SerializeToString(), available_cores())
    except Exception as error:  # the binding's exceptions have no base of their own
        raise NoAttention(f"ONNX Runtime refuses the graph ({one_line(error)[:200]})") from None
    return Probe(session, tuple(names))
