"""A student's two methods as exported programs, in each precision: to add one is to add an entry.

Its name also stands in `nanocap.bundle.precisions`, for the command line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torchao.quantization import Int8DynamicActivationIntxWeightConfig, PerGroup, quantize_

from nanocap.convert.executorch.decoder import DecodeOne
from nanocap.convert.executorch.encoder import EncodeOne
from nanocap.convert.executorch.integers import quantize
from nanocap.convert.executorch.tables import BLOCK, ByteTable, FloatTable, NibbleTable
from nanocap.student import Dimensions, Student

Photos = npt.NDArray[np.uint8]  # [photos, S, S, 3]
MAX_BEAMS = 8  # rows of `decode`; the engine splits more
EXAMPLE_BEAMS = 3


@dataclass(frozen=True)
class Precision:
    """How the methods of a precision are made.

    Attributes:
        encode, decode: make the programs.
        calibrated: whether the photos must be such as it will see.
    """

    encode: Callable[[Student, Photos], ExportedProgram]
    decode: Callable[[Student], ExportedProgram]
    calibrated: bool = False


def encode(student: Student, photos: Photos) -> ExportedProgram:
    """`encode` as trained."""
    return _export_encode(EncodeOne(student).eval(), student.dimensions)


def decode(student: Student) -> ExportedProgram:
    """`decode` as trained."""
    return _export_decode(DecodeOne(student, FloatTable).eval(), student.dimensions)


def encode_int8(student: Student, photos: Photos) -> ExportedProgram:
    """`encode` with an int8 trunk and linear layers."""
    seen = ((torch.from_numpy(photo[None]),) for photo in photos)
    return _export_encode(quantize(encode(student, photos), seen), student.dimensions)


def decode_int8(student: Student) -> ExportedProgram:
    """`decode` with int8 linear layers and table."""
    program = _export_decode(DecodeOne(student, ByteTable).eval(), student.dimensions)
    example = decode_example(student.dimensions, 1)
    return _export_decode(quantize(program, [example]), student.dimensions)


def decode_int4(student: Student) -> ExportedProgram:
    """`decode` with linear layers of 4-bit weights, a scale a block of them, and such a table."""
    module = DecodeOne(student, NibbleTable).eval()
    four_bits = torch.int4  # type: ignore[attr-defined]  # its stubs leave it out
    quantize_(module, Int8DynamicActivationIntxWeightConfig(four_bits, PerGroup(BLOCK)))
    return _export_decode(module, student.dimensions)


def decode_example(dimensions: Dimensions, rows: int) -> tuple[Tensor, ...]:
    """Inputs of `decode`: zeros for so many beams."""
    heads, channels = dimensions.heads, dimensions.width // dimensions.heads
    cross = (heads * dimensions.decoder_layers, channels, dimensions.visual_tokens)
    keys = (rows, dimensions.width, dimensions.max_tokens)
    values = (rows, heads * dimensions.max_tokens, channels)
    return (
        torch.zeros(rows, dtype=torch.int64),
        torch.zeros(1, dtype=torch.int64),
        torch.zeros(cross),
        torch.zeros(cross).transpose(1, 2).contiguous(),
        *(torch.zeros(s) for _ in range(dimensions.decoder_layers) for s in (keys, values)),
    )


def _export_encode(module: nn.Module, dimensions: Dimensions) -> ExportedProgram:
    size = dimensions.image_size
    with torch.no_grad():
        return torch.export.export(module, (torch.zeros(1, size, size, 3, dtype=torch.uint8),))


def _export_decode(module: nn.Module, dimensions: Dimensions) -> ExportedProgram:
    rows = Dim("rows", min=1, max=MAX_BEAMS)
    example = decode_example(dimensions, EXAMPLE_BEAMS)
    caches = ({0: rows},) * (len(example) - 4)
    # an exported graph has lost the star of `*caches`
    rest = caches if isinstance(module, fx.GraphModule) else (caches,)
    shapes = ({0: rows}, None, None, None, *rest)
    with torch.no_grad():
        return torch.export.export(module, example, dynamic_shapes=shapes)


PRECISIONS: dict[str, Precision] = {
    "int8": Precision(encode_int8, decode_int8, calibrated=True),
    "fp32": Precision(encode, decode),
    "int4": Precision(encode_int8, decode_int4, calibrated=True),
}
