"""Multiply-adds by operator: one function a family, found by the operator's name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nanocap.measure.bench.graphs import Shape


@dataclass(frozen=True)
class Call:
    """A node with the shapes around it.

    Attributes:
        inputs: shapes of the inputs; () also stands for one that is left out.
        output: shape of the first output.
        attributes: as Python values.
    """

    inputs: Sequence[Shape]
    output: Shape
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Operator:
    """How to count an operator.

    Attributes:
        multiply_adds: of a call.
        data: places of the two factors among the inputs.
        integer: it multiplies integers by its definition (others do where both factors are
            dequantized just before, which ONNX Runtime fuses).
    """

    multiply_adds: Callable[[Call, tuple[int, int]], int]
    data: tuple[int, int] = (0, 1)
    integer: bool = False

    def count(self, call: Call) -> int:
        """Multiply-adds of one call."""
        return self.multiply_adds(call, self.data)


def _convolution(call: Call, data: tuple[int, int]) -> int:
    """Each output takes the weights [M, C / groups, kernel...] of its channel."""
    return math.prod(call.output) * math.prod(call.inputs[data[1]][1:])


def _transposed_convolution(call: Call, data: tuple[int, int]) -> int:
    """Each input meets the weights [C, M / groups, kernel...] of its channel."""
    return math.prod(call.inputs[data[0]]) * math.prod(call.inputs[data[1]][1:])


def _product(call: Call, data: tuple[int, int]) -> int:
    """[..., M, K] by [..., K, N], batched and broadcast as the output says."""
    return math.prod(call.output) * call.inputs[data[0]][-1]


def _gemm(call: Call, data: tuple[int, int]) -> int:
    rows = call.inputs[data[0]]
    return math.prod(call.output) * rows[0 if call.attributes.get("transA", 0) else 1]


def _einsum(call: Call, data: tuple[int, int]) -> int:
    """The sizes of all indices multiplied: a product of two operands without a cleverer path."""
    equation = call.attributes["equation"]
    text = equation.decode() if isinstance(equation, bytes) else str(equation)
    terms = text.replace(" ", "").partition("->")[0].split(",")
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, call.inputs, strict=True):
        before, _, after = term.partition("...")
        broadcast = len(shape) - len(before) - len(after)  # axes that the dots stand for
        names = [*before, *(f"...{i}" for i in range(broadcast, 0, -1)), *after]
        for name, size in zip(names, shape, strict=True):
            sizes[name] = max(size, sizes.get(name, 1))
    return math.prod(sizes.values())


OPERATORS = {
    "Conv": Operator(_convolution),
    "ConvInteger": Operator(_convolution, integer=True),
    "QLinearConv": Operator(_convolution, data=(0, 3), integer=True),
    "FusedConv": Operator(_convolution),
    "ConvTranspose": Operator(_transposed_convolution),
    "MatMul": Operator(_product),
    "FusedMatMul": Operator(_product),
    "MatMulInteger": Operator(_product, integer=True),
    "MatMulIntegerToFloat": Operator(_product, integer=True),
    "QLinearMatMul": Operator(_product, data=(0, 3), integer=True),
    "MatMulNBits": Operator(_product),  # its weights become floats as they are read
    "Gemm": Operator(_gemm),
    "QGemm": Operator(_gemm, data=(0, 3), integer=True),
    "Einsum": Operator(_einsum),
}
