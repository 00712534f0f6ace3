"""A student's two methods as exported programs, in each precision: to add one is to add an entry.

Its name also stands in `nanocap.bundle.precisions`, for the command line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torchao.quantization import Int8DynamicActivationIntxWeightConfig, PerGroup, quantize_

from nanocap.bundle.manifest import StateTensor
from nanocap.convert.executorch.decoder import DecodeOne
from nanocap.convert.executorch.encoder import EncodeOne
from nanocap.convert.executorch.integers import quantize
from nanocap.convert.executorch.tables import BLOCK, ByteTable, FloatTable, NibbleTable, Table
from nanocap.convert.graphs.modules import CACHES, SEEN, TOLD, Sizes, state_tensors
from nanocap.student import Dimensions, Student
from nanocap.student.evidence import has_said, with_copies
from nanocap.student.search import CONSTANT, Search, SearchState

Photos = npt.NDArray[np.uint8]  # [photos, S, S, 3]
MAX_BEAMS = 8
EXAMPLE_BEAMS = 3
ROWS = Dim("rows", min=1, max=MAX_BEAMS)


class Begin(nn.Module):
    """A photo to the state of its search: what `EncodeOne` sees, and caches that hold nothing."""

    def __init__(self, student: Student, search: Search, table: Table = FloatTable) -> None:
        super().__init__()
        self.encoder, self.search = EncodeOne(student, table), search
        self.layers, self.caches = student.dimensions.decoder_layers, _caches(student.dimensions)

    def forward(
        self,
        pixels: Tensor,
        beam_places: Tensor,
        quality: Tensor,
        length: Tensor,
        length_penalty: Tensor,
    ) -> tuple[Tensor, ...]:
        """Args: beam_places: int64 [K], 0 to K - 1; the others as in `Search.begin`."""
        beams = beam_places.shape[0]
        state = self.search.begin(1, beams, quality, length, length_penalty)
        empty = (torch.zeros(beams, *s) for _ in range(self.layers) for s in self.caches)
        keys, values, *told = self.encoder(pixels)
        return keys.unsqueeze(1), values.unsqueeze(1), *told, *state, *empty


class Step(nn.Module):
    """A state to the moving part of the next, and the logits [1, K, V]."""

    def __init__(self, student: Student, search: Search, table: Table):
        super().__init__()
        self.decoder, self.search = DecodeOne(student, table), search
        self.told = len(TOLD) if student.dimensions.evidence else 0

    def forward(self, *state: Tensor) -> tuple[Tensor, ...]:
        """Args: state: as `state_of` lists it, of one photo."""
        searched = len(SearchState._fields)
        cross_keys, cross_values, *others = state
        told, others = others[: self.told], others[self.told :]
        evidence, _, copy_keys = told or (None, None, None)
        before, caches = SearchState(*others[:searched]), others[searched:]
        # flattened, for to squeeze is to copy
        tokens, *cross = (x.flatten(0, 1) for x in (before.tokens, cross_keys, cross_values))
        found, *written = self.decoder(tokens, before.position, *cross, copy_keys, *caches)
        logits = both = found.unsqueeze(0)
        if evidence is not None:
            *written, copies = written
            both = with_copies(logits, copies, evidence, has_said(before.ids, evidence))
        after, rows = self.search.step(before, both)
        moved = (value for name, value in after._asdict().items() if name not in CONSTANT)
        return *moved, *(cache.index_select(0, rows) for cache in written), logits


@dataclass(frozen=True)
class Precision:
    """How the methods of a precision are made.

    Attributes:
        begin, step: make the programs.
        calibrated: whether the photos must be such as it will see.
    """

    begin: Callable[[Student, Search, Photos], ExportedProgram]
    step: Callable[[Student, Search], ExportedProgram]
    calibrated: bool = False


def begin(student: Student, search: Search, photos: Photos) -> ExportedProgram:
    """`begin` as trained."""
    return _export_begin(Begin(student, search).eval(), student.dimensions)


def step(student: Student, search: Search) -> ExportedProgram:
    """`step` as trained."""
    return _export_step(Step(student, search, FloatTable).eval(), student.dimensions, search)


def begin_int8(student: Student, search: Search, photos: Photos) -> ExportedProgram:
    """`begin` with an int8 trunk and linear layers."""
    rest = begin_example(student.dimensions)[1:]
    seen = ((torch.from_numpy(photo[None]), *rest) for photo in photos)
    program = _export_begin(Begin(student, search, ByteTable).eval(), student.dimensions)
    return _export_begin(quantize(program, seen), student.dimensions)


def step_int8(student: Student, search: Search) -> ExportedProgram:
    """`step` with int8 linear layers and table; the search stays as it is."""
    dimensions = student.dimensions
    program = _export_step(Step(student, search, ByteTable).eval(), dimensions, search)
    quantized = quantize(program, [step_example(dimensions, search)])
    return _export_step(quantized, dimensions, search)


def step_int4(student: Student, search: Search) -> ExportedProgram:
    """`step` with linear layers of 4-bit weights, a scale a block of them, and such a table."""
    module = Step(student, search, NibbleTable).eval()
    four_bits = torch.int4  # type: ignore[attr-defined]  # its stubs leave it out
    quantize_(module, Int8DynamicActivationIntxWeightConfig(four_bits, PerGroup(BLOCK)))
    return _export_step(module, student.dimensions, search)


def state_of(sizes: Dimensions, search: Search) -> tuple[StateTensor, ...]:
    """The state between the methods: as of every backend, but for the caches and what is seen."""
    by_head, channels = sizes.heads * sizes.decoder_layers, sizes.width // sizes.heads
    seen = ((channels, sizes.memory_tokens), (sizes.memory_tokens, channels))
    common = state_tensors(Sizes.of(sizes), search)
    return (
        *(
            StateTensor(name, "float32", (by_head, "images", *shape), constant=True)
            for name, shape in zip(SEEN, seen, strict=True)
        ),
        *(tensor for tensor in common if tensor.name in (*TOLD, *SearchState._fields)),
        *(
            StateTensor(f"{name}_{layer}", "float32", ("rows", *shape))
            for layer in range(sizes.decoder_layers)
            for name, shape in zip(CACHES, _caches(sizes), strict=True)
        ),
    )


def begin_example(dimensions: Dimensions) -> tuple[Tensor, ...]:
    """Inputs of `begin`: a photo without light."""
    size = dimensions.image_size
    controls = (torch.zeros(1, dtype=torch.int64), torch.ones(1, dtype=torch.int64))
    pixels = torch.zeros(1, size, size, 3, dtype=torch.uint8)
    return pixels, torch.arange(EXAMPLE_BEAMS), *controls, torch.ones(1)


def step_example(dimensions: Dimensions, search: Search) -> tuple[Tensor, ...]:
    """Inputs of `step`: zeros."""
    free: dict[int | str, int] = {"images": 1, "beams": EXAMPLE_BEAMS, "rows": EXAMPLE_BEAMS}
    return tuple(
        torch.zeros(
            [int(free.get(size, size)) for size in tensor.shape], dtype=getattr(torch, tensor.type)
        )
        for tensor in state_of(dimensions, search)
    )


def _caches(dimensions: Dimensions) -> tuple[tuple[int, int], tuple[int, int]]:
    """What a layer keeps of a row: keys and values, as `DecodeOne` multiplies them."""
    heads, width, length = dimensions.heads, dimensions.width, dimensions.max_tokens
    return (width, length), (heads * length, width // heads)


def _export_begin(module: nn.Module, dimensions: Dimensions) -> ExportedProgram:
    return _export(module, begin_example(dimensions), (None, {0: ROWS}, None, None, None))


def _export_step(module: nn.Module, dimensions: Dimensions, search: Search) -> ExportedProgram:
    shapes = tuple(
        {axis: ROWS for axis, size in enumerate(tensor.shape) if size in ("beams", "rows")}
        for tensor in state_of(dimensions, search)
    )
    # an exported graph has lost the star of `*state`
    given = (shapes,) if isinstance(module, Step) else shapes
    return _export(module, step_example(dimensions, search), given)


def _export(
    module: nn.Module, example: tuple[Tensor, ...], shapes: tuple[object, ...]
) -> ExportedProgram:
    with torch.no_grad():
        return torch.export.export(module, example, dynamic_shapes=shapes)


PRECISIONS: dict[str, Precision] = {
    "int8": Precision(begin_int8, step_int8, calibrated=True),
    "fp32": Precision(begin, step),
    "int4": Precision(begin_int8, step_int4, calibrated=True),
}
