"""What can be said of a package without Core ML: that it is what the runtime will ask of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from nanocap.convert.coreml.blobs import read_blobs
from nanocap.convert.coreml.package import MODEL, WEIGHTS, read_model
from nanocap.convert.errors import ConversionError

SPECIFICATION = 8  # of iOS 17
PALETTE = "constexpr_lut_to_dense"  # the operator that unpacks a palettized weight

Shapes = Mapping[str, tuple[int, ...]]


def check_package(what: str, files: Mapping[str, bytes], inputs: Shapes, outputs: Shapes) -> None:
    """Read the package back: its inputs and outputs, its target, its weights.

    Args:
        what: its name in messages.
        files: of the package, by path in it.
        inputs, outputs: names and shapes; an image is (1, 3, height, width).
    Raises:
        ConversionError: it is not as it must be.
    """
    model = read_model(files[MODEL])

    def need(found: object, expected: object, of: str) -> None:
        if found != expected:
            raise ConversionError(f"{what}: {of} is {found}, not {expected}; do not ship it")

    need(model.specificationVersion, SPECIFICATION, "its specification version")
    need(dict(map(_feature, model.description.input)), dict(inputs), "its input")
    need(dict(map(_feature, model.description.output)), dict(outputs), "its output")
    for blob in read_blobs(files[WEIGHTS]):
        if blob.dtype.kind == "f" and not np.isfinite(blob).all():
            raise ConversionError(f"{what}: a weight is not finite in {blob.dtype}; try fp32")


def count_palettes(files: Mapping[str, bytes]) -> int:
    """How many weights of a package are palettized."""
    return sum(operation.type == PALETTE for operation in _operations(read_model(files[MODEL])))


def _operations(model: Any) -> Iterator[Any]:
    for function in model.mlProgram.functions.values():
        yield from function.block_specializations[function.opset].operations


def _feature(feature: Any) -> tuple[str, tuple[int, ...]]:
    image = feature.type.imageType
    if feature.type.WhichOneof("Type") == "imageType":
        return feature.name, (1, 3, image.height, image.width)
    return feature.name, tuple(feature.type.multiArrayType.shape)
