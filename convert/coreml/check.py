"""What can be said of a package without Core ML: that it is what the runtime will ask of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from nanocap.convert.coreml.blobs import read_blob, read_blobs, unpack
from nanocap.convert.coreml.package import MODEL, WEIGHTS, read_model
from nanocap.convert.errors import ConversionError
from nanocap.student import Student

SPECIFICATION = 8  # of iOS 17
PALETTE = "constexpr_lut_to_dense"  # the operator that unpacks a palettized weight

Files = Mapping[str, bytes]  # of a package, by path in it
Shapes = Mapping[str, tuple[int, ...]]


def check_package(what: str, files: Files, inputs: Shapes, outputs: Shapes) -> None:
    """Read the package back: its inputs and outputs, its target, its weights.

    Args:
        what: its name in messages.
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


def check_weights(
    what: str, packages: Sequence[Files], student: Student, palettes: int, *, half: bool
) -> None:
    """That the packages hold the student's matrices, bit by bit, and so many of them as palettes.

    Raises:
        ConversionError: they do not.
    """
    stored, found = set(), 0
    for files in packages:
        for values, packed in _stored(files):
            stored.add(values)
            found += packed
    for name, layer in student.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.Embedding):
            weight = layer.weight.detach().numpy()
            if weight.astype(np.float16 if half else np.float32).tobytes() not in stored:
                raise ConversionError(f"{what}: does not hold the weight of {name}; do not ship it")
    if found != palettes:
        raise ConversionError(f"{what}: {found} weights are palettized, not {palettes}")


def _stored(files: Files) -> Iterator[tuple[bytes, bool]]:
    """Each constant of a program that lies among its weights, unpacked; whether it was packed."""
    for function in read_model(files[MODEL]).mlProgram.functions.values():
        for operation in function.block_specializations[function.opset].operations:
            values = operation.attributes
            if operation.type == PALETTE:
                palette = _values(values["lut"], files)
                size = [d.constant.size for d in operation.outputs[0].type.tensorType.dimensions]
                indices = unpack(_values(values["indices"], files), len(palette), np.prod(size))
                yield palette[indices].tobytes(), True
            elif operation.type == "const" and _in_weights(values["val"]):
                yield _values(values["val"], files).tobytes(), False


def _in_weights(value: Any) -> bool:
    return value.WhichOneof("value") == "blobFileValue"


def _values(value: Any, files: Files) -> Any:
    if _in_weights(value):
        return read_blob(files[WEIGHTS], value.blobFileValue.offset)
    return np.frombuffer(value.immediateValue.tensor.bytes.values, np.float16)  # a short palette


def _feature(feature: Any) -> tuple[str, tuple[int, ...]]:
    image = feature.type.imageType
    if feature.type.WhichOneof("Type") == "imageType":
        return feature.name, (1, 3, image.height, image.width)
    return feature.name, tuple(feature.type.multiArrayType.shape)
