"""fp16 for graphics and neural processors: weights and arithmetic of 16 bits, where they fit.

What could overflow there stays fp32: every value is measured on photos beforehand. Inputs and
outputs stay fp32 too, so that the runtime needs no other code. ONNX Runtime on a CPU has few fp16
operators and computes in fp32 between the roundings of the weights: `emulate` makes a graph that
rounds after every operator, as the other processors do, and that any CPU runs.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nanocap.convert.graphs.passes import constants, drop_unused
from nanocap.convert.quantization.calibration import FeedSource, collect_extremes

FLOAT, FLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16
LARGEST = 65504.0  # of fp16
ALWAYS_FLOAT = {("Resize", 2)}  # operators' inputs that are fp32 by definition
HEADROOM = 4.0  # a photo not seen may give a value so many times as large as those that were


def halve(model: onnx.ModelProto, feeds: FeedSource) -> onnx.ModelProto:
    """A copy of the graph in fp16, but for nodes whose values come near the largest number of it.

    (ONNX Runtime's own converter casts what passes between two such nodes to fp16 and back.)

    Args:
        model: fp32.
        feeds: gives inputs like those it will see.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    wide = _large(model, feeds)
    forms = _Forms(result)
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in result.graph.node]
    outputs = {output.name for output in result.graph.output}
    for node in nodes:
        kind = FLOAT if wide.intersection([*node.input, *node.output]) else FLOAT16
        for place, name in enumerate(node.input):
            if (node.op_type, place) not in ALWAYS_FLOAT:
                node.input[place] = forms.of(name, kind)
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == FLOAT:
                attribute.i = kind
        forms.nodes.append(node)
        for place, name in enumerate(node.output):
            if name in forms.floats:
                inner = f"{name}_half" if kind == FLOAT16 and name in outputs else name
                node.output[place] = forms.known[name, kind] = inner
                if inner != name:
                    forms.nodes.append(helper.make_node("Cast", [inner], [name], to=FLOAT))
                    forms.known[name, FLOAT] = name
    del result.graph.node[:]
    result.graph.node.extend(forms.nodes)
    return drop_unused(result)


class _Forms:
    """The names under which each float value is there as fp32 and as fp16; casts where it is not.

    Attributes:
        floats: names of the values, in the original, that are floats.
        known: name by original name and kind.
        nodes: of the new graph, so far.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._constants = {t.name: t for t in model.graph.initializer if t.data_type == FLOAT}
        inputs = {v.name for v in model.graph.input if v.type.tensor_type.elem_type == FLOAT}
        self.floats = _floats(model) | inputs | self._constants.keys()
        self.known: dict[tuple[str, int], str] = {
            (name, FLOAT): name for name in inputs | self._constants.keys()
        }
        self.nodes: list[onnx.NodeProto] = []

    def of(self, name: str, kind: int) -> str:
        """The name of the value in that kind; of a value that is no float, its own."""
        if name not in self.floats:
            return name
        if (name, kind) not in self.known:
            other = FLOAT if kind == FLOAT16 else FLOAT16
            cast = f"{name}_half" if kind == FLOAT16 else f"{name}_wide"
            if name in self._constants:
                values = numpy_helper.to_array(self._constants[name]).astype(np.float16)
                self._graph.initializer.append(numpy_helper.from_array(values, cast))
            else:
                source = self.known[name, other]
                self.nodes.append(helper.make_node("Cast", [source], [cast], to=kind))
            self.known[name, kind] = cast
        return self.known[name, kind]


def _large(model: onnx.ModelProto, feeds: FeedSource) -> set[str]:
    """Values, and constants, that fp16 may not hold."""
    limit = LARGEST / HEADROOM
    ranges = collect_extremes(model, _floats(model), feeds)
    large = {name for name, (low, high) in ranges.items() if max(-low, high) > limit}
    return large | {
        name
        for name, values in constants(model).items()
        if values.dtype == np.float32 and np.abs(values).max(initial=0) > limit
    }


def emulate(half: onnx.ModelProto) -> onnx.ModelProto:
    """What `halve` made, as an fp32 graph that rounds to fp16 where the original holds fp16."""
    graph = onnx.shape_inference.infer_shapes(half, strict_mode=True).graph
    rounded = {v.name for v in graph.value_info if v.type.tensor_type.elem_type == FLOAT16}
    result = onnx.ModelProto()
    result.CopyFrom(half)
    for tensor in result.graph.initializer:
        if tensor.data_type == FLOAT16:
            wide = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
    nodes: list[onnx.NodeProto] = []
    for node in result.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == FLOAT16:
                attribute.i = FLOAT
        nodes.append(node)
        for place, name in enumerate(node.output):
            if name in rounded:
                node.output[place] = f"{name}_exact"
                nodes += [
                    helper.make_node("Cast", [f"{name}_exact"], [f"{name}_half"], to=FLOAT16),
                    helper.make_node("Cast", [f"{name}_half"], [name], to=FLOAT),
                ]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del result.graph.node[:]
    result.graph.node.extend(copies)
    return result


def _floats(model: onnx.ModelProto) -> set[str]:
    """Names of the fp32 values that the graph's nodes make."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = [*graph.value_info, *graph.output]
    return {value.name for value in values if value.type.tensor_type.elem_type == FLOAT}
