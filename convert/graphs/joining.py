"""`begin` and `step`: the encoder and the decoder of a precision, each with its part of the search.

The search is fp32 in every precision: it is a hundred small operators, and decides in their last
digits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, compose, helper, numpy_helper
from torch import Tensor
from torch.nn import functional as F

from nanocap.convert.graphs.modules import (
    AXES,
    CACHES,
    DECODER_AXES,
    EXAMPLE_PLACES,
    SearchBegin,
    SearchStep,
    Sizes,
)
from nanocap.convert.graphs.passes import clean
from nanocap.convert.graphs.sessions import folded
from nanocap.convert.graphs.tracing import trace
from nanocap.student.search import Search, SearchState

EXAMPLE_IMAGES, EXAMPLE_BEAMS = 2, 3  # no axis of length 1, which tracing would take for fixed


@dataclass(frozen=True)
class SearchGraphs:
    """The two parts of a search, traced."""

    first: onnx.ModelProto
    further: onnx.ModelProto

    @classmethod
    def trace(cls, sizes: Sizes, search: Search) -> SearchGraphs:
        """Traces a search over graphs of these sizes."""
        example = sizes.begin_example(EXAMPLE_IMAGES, EXAMPLE_BEAMS)
        begin = SearchBegin(sizes, search).eval()
        step = SearchStep(search, copies=bool(sizes.evidence)).eval()
        started = dict(zip(begin.outputs, begin(*example), strict=True))
        logits = started["bias"].clone()
        written = [F.pad(started[name], (0, 0, 0, EXAMPLE_PLACES)) for name in CACHES]
        state = [started[name] for name in SearchState._fields]
        return cls(
            _computed(folded(trace(begin, example))),
            folded(trace(step, (*state, logits, *written, *_told(sizes)))),
        )

    def begin(self, encoder: onnx.ModelProto) -> onnx.ModelProto:
        """`pixels`, `beams` and controls to a state."""
        places = helper.make_node("Range", ["no_beam", "beams", "one_beam"], ["beam_places"])
        model = _joined(
            (encoder, self.first),
            (places,),
            {"no_beam": np.array(0), "one_beam": np.array(1)},
            [helper.make_tensor_value_info("beams", TensorProto.INT64, [])],
        )
        return clean(model, AXES)

    def step(self, decoder: onnx.ModelProto) -> onnx.ModelProto:
        """A state to the moving part of the next, and `logits`."""
        inner = {output.name for output in decoder.graph.output} - {"logits"}
        return clean(_joined((decoder, self.further), hidden=inner), DECODER_AXES)


def _told(sizes: Sizes) -> tuple[Tensor, ...]:
    """`copies` and `evidence` for tracing, where words are copied."""
    if not sizes.evidence:
        return ()
    copies = torch.zeros(EXAMPLE_IMAGES, EXAMPLE_BEAMS, sizes.evidence)
    return copies, torch.zeros(EXAMPLE_IMAGES, sizes.evidence, dtype=torch.int64)


def _joined(
    parts: Sequence[onnx.ModelProto],
    nodes: Sequence[onnx.NodeProto] = (),
    constants: Mapping[str, Any] | None = None,
    inputs: Sequence[onnx.ValueInfoProto] = (),
    hidden: frozenset[str] | set[str] = frozenset(),
) -> onnx.ModelProto:
    """Two graphs as one: what the first gives, the second may take by its name.

    Args:
        nodes, constants: of their own, in between.
        inputs: that `nodes` take.
        hidden: outputs of the first that are none of the whole.
    """
    first, second = (
        compose.add_prefix(part, prefix, rename_inputs=False, rename_outputs=False)
        for part, prefix in zip(parts, ("model/", "search/"), strict=True)
    )
    known = {value.name for value in (*first.graph.input, *first.graph.output)}
    known |= {name for node in nodes for name in node.output}
    domains: dict[str, int] = {}
    for entry in (*first.opset_import, *second.opset_import):
        domains[entry.domain] = max(entry.version, domains.get(entry.domain, 0))
    graph = helper.make_graph(
        [*first.graph.node, *nodes, *second.graph.node],
        "nanocap",
        [*first.graph.input, *inputs, *(i for i in second.graph.input if i.name not in known)],
        [*(o for o in first.graph.output if o.name not in hidden), *second.graph.output],
        [
            *first.graph.initializer,
            *second.graph.initializer,
            *(numpy_helper.from_array(value, name) for name, value in (constants or {}).items()),
        ],
    )
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(*entry) for entry in domains.items()],
        ir_version=max(first.ir_version, second.ir_version),
    )


def _computed(model: onnx.ModelProto) -> onnx.ModelProto:
    """With a node for each output that the exporter found to be constant; in place."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for output in model.graph.output:
        if output.name in constants:
            constants[output.name].name = f"{output.name}_value"
            model.graph.node.append(
                helper.make_node("Identity", [f"{output.name}_value"], [output.name])
            )
    return model
