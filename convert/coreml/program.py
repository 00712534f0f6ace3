"""The two graphs of a bundle as ML programs of Core ML.

`begin` takes an image, not a tensor: Core ML's own image input holds the scale and the bias of the
normalization, so that an app hands over a pixel buffer and nothing is normalized twice. Both are
for one photo and a fixed number of beams, since Core ML of iOS 17 gives its fast paths to fixed
shapes only. The number of visual tokens is free in `step` where several budgets share it.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import coremltools as ct
import numpy as np
import numpy.typing as npt
import torch
from coremltools.converters.mil.mil.scope import ScopeSource
from torch import Tensor

from nanocap.convert.coreml.palette import LEAST
from nanocap.convert.errors import ConversionError
from nanocap.convert.graphs.modules import (
    CACHES,
    SEEN,
    Graph,
    SearchBegin,
    SearchStep,
    Shapes,
    Sizes,
    decoded,
    outputs_of,
    remembered,
)
from nanocap.errors import one_line
from nanocap.student import Student
from nanocap.student.search import Search, SearchState
from nanocap.student.trunk import PIXEL_MEAN, PIXEL_STD

TARGET = ct.target.iOS17
SEEN_AXIS = 2  # of `cross_keys` and `cross_values`: visual tokens
INDEX_BITS = (1, 2, 4, 6, 8)  # of palettes in iOS 17
# No-ops that coremltools cannot read: what a full slice and `detach` become in an exported program.
ALIASES = (torch.ops.aten.alias.default, torch.ops.aten.detach.default)
SEARCH = 1  # debug handle of the operators that stay as wide as they are
LARGE = ("bias", *CACHES)  # zeros, not to lie in the file
NARROWING = ("common::add_fp16_cast", "common::add_int16_cast")


class First(SearchBegin):
    """As `SearchBegin`, for so many beams; truths as 0 and 1.

    coremltools gives out no input as it is, and nobody has tried whether Core ML does so with a
    constant. So to each is added a nothing that neither of them can know.
    """

    def __init__(self, sizes: Sizes, search: Search, beams: int) -> None:
        super().__init__(sizes, search, sizes.max_tokens)
        self.beams = beams

    def forward(self, cross_keys: Tensor, *controls: Tensor) -> tuple[Tensor, ...]:
        state = super().forward(cross_keys, torch.arange(self.beams), *controls)
        nothing = controls[0] - controls[0]
        return tuple(
            (nothing.expand(value.shape) if name in LARGE else value) + nothing.to(value.dtype)
            for name, value in zip(self.outputs, _plain(*state), strict=True)
        )


class Begin(Graph):
    """Normalized pixels [1, 3, S, S] and controls to the state of K beams."""

    inputs = ("pixels", "quality", "length", "length_penalty")

    def __init__(self, student: Student, search: Search, beams: int) -> None:
        super().__init__()
        self.encoder, self.decoder = student.encoder, student.decoder
        self.search = First(Sizes.of(student.dimensions), search, beams)
        self.outputs = (*outputs_of(student), *First.outputs)

    def forward(
        self, pixels: Tensor, quality: Tensor, length: Tensor, length_penalty: Tensor
    ) -> tuple[Tensor, ...]:
        cross = remembered(self.decoder, self.encoder(pixels))
        return (*cross, *self.search(cross[0], quality, length, length_penalty))


class Step(Graph):
    """A state to the moving part of the next, and `logits`.

    Not `DecoderGraph`: that one stacks query, key and value in one matrix, whose parts are of
    different scale and would have to share one palette.
    """

    outputs = (*SearchStep.outputs, "logits")

    def __init__(self, student: Student, search: Search) -> None:
        super().__init__()
        self.decoder = student.decoder
        self.search = SearchStep(search, copies=bool(student.dimensions.evidence))
        self.inputs = (*outputs_of(student), *First.outputs)

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        state = dict(zip(self.inputs, given, strict=True))
        found = decoded(self.decoder, state)
        state["going"] = state["going"] > 0
        at = (state[name] for name in SearchState._fields)
        told = (state["evidence"],) if self.decoder.copying else ()
        return _plain(*self.search(*at, *found, *told), found[0])

    def shapes(self, axes: Mapping[str, dict[int, str]]) -> Shapes:
        return {"given": tuple(super().shapes(axes).values())}


def _plain(*values: Tensor) -> tuple[Tensor, ...]:
    return tuple(value.int() if value.dtype == torch.bool else value for value in values)


@torch.no_grad()
def ml_program(
    student: Student,
    search: Search,
    role: str,
    beams: int,
    *,
    half: bool,
    budgets: Collection[int] = (),
) -> Any:
    """The student's `begin` or `step` as a coremltools MLModel, its weights uncompressed.

    Args:
        half: compute and store in fp16, but for the search; inputs and outputs stay fp32.
        budgets: numbers of visual tokens that `step` takes; default: the student's own.
    Raises:
        ConversionError: torch or coremltools refuses the graph.
    """
    sizes = Sizes.of(student.dimensions)
    graph: Graph = Begin(student, search, beams).eval()
    image = torch.zeros(1, 3, sizes.image_size, sizes.image_size)
    example = (image, *sizes.begin_example(1, beams)[2:])
    axes: dict[str, dict[int, str]] = {}
    if role == "step":
        example, graph = graph(*example), Step(student, search).eval()
        seen = {tokens + sizes.evidence for tokens in (*budgets, sizes.visual_tokens)}
        if len(seen) > 1:
            axes = {name: {SEEN_AXIS: "memory_tokens"} for name in SEEN}
            free = ct.RangeDim(min(seen), max(seen), default=sizes.memory_tokens)
    inputs: list[Any] = []
    for name, value in zip(graph.inputs, example, strict=True):
        shape: list[Any] = list(value.shape)
        if name in axes:
            shape[SEEN_AXIS] = free
        inputs.append(ct.TensorType(name, ct.Shape(shape), _type(value)))
    if role == "begin":
        inputs[0] = ct.ImageType(
            name=graph.inputs[0],
            shape=tuple(image.shape),
            scale=1 / PIXEL_STD,
            bias=[-PIXEL_MEAN / PIXEL_STD] * 3,
            color_layout=ct.colorlayout.RGB,
        )
    results = zip(graph.outputs, graph(*example), strict=True)
    passes = ct.PassPipeline.DEFAULT
    for narrowing in NARROWING if half else ():
        passes.set_options(narrowing, {"op_selector": _is_of_student})
    with quiet():
        try:
            return ct.convert(
                _exported(graph, example, axes),
                inputs=inputs,
                outputs=[ct.TensorType(name, dtype=_type(value)) for name, value in results],
                minimum_deployment_target=TARGET,
                compute_precision=ct.precision.FLOAT16 if half else ct.precision.FLOAT32,
                pass_pipeline=passes,
                skip_model_load=True,
            )
        except Exception as error:  # both raise whatever their insides raise
            raise ConversionError(f"{role} does not go into Core ML: {one_line(error)}") from error


def _type(value: Tensor) -> type[np.generic]:
    """What Core ML, which knows two types in inputs and outputs, calls the like."""
    return np.float32 if value.is_floating_point() else np.int32


def _is_of_student(operation: Any) -> bool:
    """Whether an operator is none of the search's, whose sums and counts 16 bits do not hold."""
    return bool(operation.scopes.get(ScopeSource.EXIR_DEBUG_HANDLE) != [SEARCH])


def compress(program: Any, weights: Sequence[Tensor]) -> Any:
    """The program with these of its weights as indices into a palette.

    Args:
        weights: of at most 256 different fp16 values each.
    Raises:
        ConversionError: coremltools refuses it.
    """
    optimize = ct.optimize.coreml
    chosen = {weight.detach().half().numpy().tobytes() for weight in weights}
    palette = optimize.OpPalettizerConfig(
        mode="custom", lut_function=_palette, weight_threshold=LEAST - 1
    )
    with quiet():
        try:
            # not `get_weights_metadata`, which fails on a constant in the list of a `concat`
            few = {
                operation.name: palette
                for function in program._mil_program.functions.values()
                for operation in function.find_ops(op_type="const")
                if isinstance(operation.outputs[0].val, np.ndarray)
                and operation.outputs[0].val.tobytes() in chosen
            }
            return optimize.palettize_weights(
                program, optimize.OptimizationConfig(op_name_configs=few)
            )
        except Exception as error:
            raise ConversionError(f"coremltools cannot palettize: {one_line(error)}") from error


def _palette(weight: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8]]:
    """The palette, as long as Core ML wants it, and the index of each value."""
    # As bit patterns: numpy 2.4 sorts fp16 wrongly on processors with AVX-512 where values repeat,
    # so that `unique` of a palettized weight counts too many.
    distinct, indices = np.unique(weight.view(np.uint16), return_inverse=True)
    length = next(1 << bits for bits in INDEX_BITS if 1 << bits >= len(distinct))
    return np.resize(distinct, length).view(np.float16), indices.ravel().astype(np.uint8)


def _exported(
    graph: Graph, example: tuple[Tensor, ...], axes: Mapping[str, dict[int, str]]
) -> torch.export.ExportedProgram:
    exported = torch.export.export(graph, example, dynamic_shapes=graph.shapes(axes))
    program = exported.run_decompositions(DECOMPOSITIONS)
    for node in list(program.graph.nodes):
        if any(path == "search" for path, _ in node.meta.get("nn_module_stack", {}).values()):
            node.meta["debug_handle"] = SEARCH
        if node.target in ALIASES:
            node.replace_all_uses_with(node.args[0])
            program.graph.erase_node(node)
    return program


def _log_softmax(x: Tensor, axis: int, dtype: torch.dtype | None = None) -> Tensor:
    """coremltools takes the logarithm of a softmax, which knows nothing below 1e-45."""
    shifted = x - x.amax(axis, keepdim=True)
    return shifted - shifted.exp().sum(axis, keepdim=True).log()


def _in_floats(operator: Any, kind: torch.dtype) -> Callable[..., Any]:
    """`operator`, for inputs of a kind that Core ML's own takes not, or gives back as floats."""

    def compute(x: Tensor, *given: Any, **named: Any) -> Any:
        return operator(x.float(), *given, **named).to(kind) if x.dtype == kind else NotImplemented

    return compute


def _where(truth: Tensor, a: float, b: Tensor) -> Tensor:
    """coremltools takes the result's shape from `b` alone."""
    if truth.shape == b.shape:
        return NotImplemented
    shape = np.broadcast_shapes(truth.shape, b.shape)
    return torch.where(truth.expand(shape), a, b.expand(shape))


ATEN = torch.ops.aten
# What coremltools cannot read, or reads otherwise, in words that it can.
DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    ATEN.clamp.default: _in_floats(ATEN.clamp.default, torch.int64),
    ATEN.index_select.default: _in_floats(ATEN.index_select.default, torch.bool),
    ATEN.log_softmax.int: _log_softmax,
    ATEN.pad.default: _in_floats(ATEN.pad.default, torch.int64),
    ATEN.where.ScalarOther: lambda truth, a, b: torch.where(truth, a, a.new_full((1,), b)),
    ATEN.where.ScalarSelf: _where,
}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without coremltools' progress bars, which know no switch, and torch's own deprecations."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
