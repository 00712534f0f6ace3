"""The two graphs of a bundle as ML programs of Core ML.

The encoder takes an image, not a tensor: Core ML's own image input holds the scale and the bias of
the normalization, so that an app hands over a pixel buffer and nothing is normalized twice. The
decoder takes one row (one beam of one photo): Core ML of iOS 17 gives its fast paths to fixed
shapes only, and a second row would cost nearly as much as a second call. Its number of visual
tokens is free only where encoders of several budgets share it.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import coremltools as ct
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nanocap.convert.coreml.palette import LEAST
from nanocap.convert.errors import ConversionError
from nanocap.convert.graphs.modules import DecoderGraph, EncoderGraph, Graph, Sizes
from nanocap.errors import one_line
from nanocap.student import Student
from nanocap.student.trunk import PIXEL_MEAN, PIXEL_STD

TARGET = ct.target.iOS17
CROSS, SEEN_AXIS = ("cross_keys", "cross_values"), 2  # the decoder's inputs by visual token
INDEX_BITS = (1, 2, 4, 6, 8)  # of palettes in iOS 17
# No-ops that coremltools cannot read: what a full slice and `detach` become in an exported program.
ALIASES = (torch.ops.aten.alias.default, torch.ops.aten.detach.default)


class ImageEncoder(Graph):
    """Normalized pixels [1, 3, S, S] to `cross_keys` and `cross_values` [L, 1, N, D]."""

    inputs, outputs = EncoderGraph.inputs, EncoderGraph.outputs

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.encoder, self.decoder = student.encoder, student.decoder

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return self.decoder.cross(self.encoder(pixels))


class StepDecoder(Graph):
    """`Decoder.step` for one row.

    Not `DecoderGraph`: that one stacks query, key and value in one matrix, whose parts are of
    different scale and would have to share one palette.
    """

    inputs, outputs = DecoderGraph.inputs, DecoderGraph.outputs

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.decoder = student.decoder

    def forward(
        self,
        tokens: Tensor,
        position: Tensor,
        cross_keys: Tensor,
        cross_values: Tensor,
        keys: Tensor,
        values: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        return self.decoder.step(tokens, position, cross_keys, cross_values, keys, values)


def ml_program(student: Student, role: str, *, half: bool, budgets: Collection[int] = ()) -> Any:
    """The student's `encoder` or `decoder` as a coremltools MLModel, its weights uncompressed.

    Args:
        half: compute and store in fp16; inputs and outputs stay fp32.
        budgets: numbers of visual tokens that the decoder takes; default: the student's own.
    Raises:
        ConversionError: torch or coremltools refuses the graph.
    """
    sizes = Sizes.of(student.dimensions)
    side = sizes.image_size
    graph: Graph
    example: tuple[Tensor, ...]
    axes: dict[str, dict[int, str]] = {}
    if role == "encoder":
        graph, example = ImageEncoder(student), (torch.zeros(1, 3, side, side),)
        inputs: list[Any] = [
            ct.ImageType(
                name=graph.inputs[0],
                shape=(1, 3, side, side),
                scale=1 / PIXEL_STD,
                bias=[-PIXEL_MEAN / PIXEL_STD] * 3,
                color_layout=ct.colorlayout.RGB,
            )
        ]
    else:
        graph, example = StepDecoder(student), sizes.decoder_example(1, 1)
        seen = {*budgets, sizes.visual_tokens}
        if len(seen) > 1:
            axes = {name: {SEEN_AXIS: "visual_tokens"} for name in CROSS}
            tokens = ct.RangeDim(min(seen), max(seen), default=sizes.visual_tokens)
        inputs = []
        for name, value in zip(graph.inputs, example, strict=True):
            shape: list[Any] = list(value.shape)
            if name in axes:
                shape[SEEN_AXIS] = tokens
            kind = np.float32 if value.is_floating_point() else np.int32
            inputs.append(ct.TensorType(name, ct.Shape(shape), kind))
    with quiet():
        try:
            return ct.convert(
                _exported(graph, example, axes),
                inputs=inputs,
                outputs=[ct.TensorType(name, dtype=np.float32) for name in graph.outputs],
                minimum_deployment_target=TARGET,
                compute_precision=ct.precision.FLOAT16 if half else ct.precision.FLOAT32,
                skip_model_load=True,
            )
        except Exception as error:  # both raise whatever their insides raise
            raise ConversionError(
                f"the {role} does not go into Core ML: {one_line(error)}"
            ) from error


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


@torch.no_grad()
def _exported(
    graph: Graph, example: tuple[Tensor, ...], axes: Mapping[str, dict[int, str]]
) -> torch.export.ExportedProgram:
    exported = torch.export.export(graph.eval(), example, dynamic_shapes=graph.shapes(axes))
    program = exported.run_decompositions({})
    for node in list(program.graph.nodes):
        if node.target in ALIASES:
            node.replace_all_uses_with(node.args[0])
            program.graph.erase_node(node)
    return program


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without coremltools' progress bars, which know no switch, and torch's own deprecations."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
