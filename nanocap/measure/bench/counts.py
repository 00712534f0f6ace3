"""Multiply-adds of an ONNX graph, and the bytes that one run of it must move.

The graph is read as a good runtime would run it:

- What only renames a tensor (a reshape) moves nothing, nor does a `Relu` or `Clip` right behind a
  product: it is done before the result is written.
- `DequantizeLinear` and `QuantizeLinear` belong to the operators beside them: these read and write
  the integers, and multiply them where both factors are quantized.
- What depends on weights alone is computed at load; its result counts as a weight.
- A weight is read once a run, however many operators share it; a `Gather` reads its rows only.
- Every other operator reads each input and writes each output once. Fusing more than that, or
  finding an activation still in a cache, can beat the count.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nanocap.measure.bench.graphs import Feeds, Tensor, attributes, import_onnx, run_tensors
from nanocap.measure.bench.operators import OPERATORS, Call

RENAMES = {"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"}
FREE = {"Shape", "Size", "Constant"}
BOUNDS = {"Relu", "Clip"}
READS_PARTS = {"Gather", "GatherElements", "GatherND", "Slice"}  # of their first input
QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"


@dataclass(frozen=True)
class Counts:
    """What one run of a graph takes.

    Attributes:
        int8_multiply_adds: where both factors have 8 bits or fewer.
        float_multiply_adds: all others.
        weight_bytes: of all initializers, as stored.
        read_bytes: of weights, what one run reads.
        activation_bytes: read and written.
    """

    int8_multiply_adds: int
    float_multiply_adds: int
    weight_bytes: int
    read_bytes: int
    activation_bytes: int

    @property
    def multiply_adds(self) -> int:
        """Of both kinds."""
        return self.int8_multiply_adds + self.float_multiply_adds

    @property
    def moved_bytes(self) -> int:
        """Weights and activations."""
        return self.read_bytes + self.activation_bytes


def count(graph: bytes, feeds: Feeds) -> Counts:
    """Counts of one run of the graph in a file's bytes, with these inputs.

    Raises:
        MissingExtraError: `onnx` is not installed.
    """
    model = import_onnx().load_model_from_string(graph)
    return _Walk(model.graph, run_tensors(model, feeds)).counts()


class _Walk:
    """One pass over the nodes of a graph, which ONNX keeps in the order of computing."""

    def __init__(self, graph: Any, tensors: Mapping[str, Tensor]) -> None:
        self.graph, self.tensors = graph, tensors
        self.producers = {name: node for node in graph.node for name in node.output if name}
        self.uses = Counter(name for node in graph.node for name in node.input)
        self.outputs = {self.origin(value.name) for value in graph.output}
        self.fixed = {i.name for i in graph.initializer}  # initializers, and what follows from them
        self.consumers: dict[str, list[Any]] = defaultdict(list)
        for node in graph.node:
            if not self.renames(node):
                for name in filter(None, node.input):
                    self.consumers[self.origin(name)].append(node)
        self.weights: dict[str, int] = {}  # bytes read by name
        self.activations = 0

    def counts(self) -> Counts:
        initializers = [self.tensors[i.name].bytes for i in self.graph.initializer]
        products = {True: 0, False: 0}
        for node in self.graph.node:
            if node.op_type == "Constant" or (
                node.input and all(name in self.fixed for name in node.input if name)
            ):
                self.fixed.update(node.output)
            elif not (node.op_type in FREE or self.renames(node) or self.absorbed(node)):
                operator = OPERATORS.get(node.op_type)
                if operator is not None:
                    factors = [self.stored(node.input[place]) for place in operator.data]
                    integer = operator.integer or all(
                        self.is_quantized(node.input[place]) for place in operator.data
                    )
                    narrow = integer and all(self.tensors[name].bits <= 8 for name in factors)
                    products[narrow] += operator.count(self.call(node))
                self.move(node)
        return Counts(
            int8_multiply_adds=products[True],
            float_multiply_adds=products[False],
            weight_bytes=sum(initializers),
            read_bytes=sum(self.weights.values()),
            activation_bytes=self.activations,
        )

    def call(self, node: Any) -> Call:
        shapes = [self.tensors[name].shape if name else () for name in node.input]
        return Call(shapes, self.tensors[node.output[0]].shape, attributes(node))

    def renames(self, node: Any) -> bool:
        """Whether the node's output is its first input under another name."""
        if node.op_type in BOUNDS:
            before = self.producers.get(node.input[0])
            product = before is not None and before.op_type in OPERATORS
            return product and self.uses[node.input[0]] == 1
        return node.op_type in RENAMES

    def origin(self, name: str) -> str:
        """The tensor that `name` is another name of."""
        while name in self.producers and self.renames(self.producers[name]):
            name = self.producers[name].input[0]
        return name

    def is_quantized(self, name: str) -> bool:
        producer = self.producers.get(self.origin(name))
        return producer is not None and producer.op_type == DEQUANTIZE

    def stored(self, name: str) -> str:
        """The tensor that is in memory where a node reads `name`: behind it, the integers."""
        origin = self.origin(name)
        return self.origin(self.producers[origin].input[0]) if self.is_quantized(name) else origin

    def absorbed(self, node: Any) -> bool:
        """Whether a neighbour does the work of this `QuantizeLinear` or `DequantizeLinear`."""
        if node.op_type == DEQUANTIZE:
            return node.output[0] not in self.outputs
        return node.op_type == QUANTIZE and self.writes_integers(self.origin(node.input[0]))

    def writes_integers(self, name: str) -> bool:
        """Whether all that becomes of a computed tensor is its quantized form."""
        users = self.consumers[name]
        return (
            name in self.producers
            and name not in self.outputs
            and bool(users)
            and all(user.op_type == QUANTIZE for user in users)
        )

    def move(self, node: Any) -> None:
        """Add the bytes that a node reads and writes."""
        result = self.tensors[node.output[0]].elements
        for place, name in enumerate(dict.fromkeys(filter(None, node.input))):
            source = self.stored(name)
            tensor = self.tensors[source]
            size = tensor.bytes
            if place == 0 and node.op_type in READS_PARTS:
                size = min(size, result * tensor.bits // 8)
            if source in self.fixed:
                self.weights[source] = max(size, self.weights.get(source, 0))
            else:
                self.activations += size
        self.activations += sum(self.tensors[name].bytes for name in self.written(node))

    def written(self, node: Any) -> Iterator[str]:
        """The tensors that reach memory from a node: its outputs, or their integers."""
        for name in filter(None, node.output):
            if self.writes_integers(name):
                yield from (user.output[0] for user in self.consumers[name])
            else:
                yield name
