"""Values of a saved ML program as torch tensors: read from the protobuf, or from `weight.bin`.

The weights are read by Apple's own reader, the one in coremltools, and not by the one of
`nanocap.convert.coreml`, which is to be proven as well.

A tensor here is float32, int64 or bool whatever the width in the file; a value that the file calls
fp16 is rounded to fp16 and kept in float32.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from coremltools.libmilstoragepython import _BlobStorageReader
from coremltools.proto import MIL_pb2
from torch import Tensor

# Data type of the file: how numbers lie in bytes, and the reader's method for a blob.
KINDS = {
    "FLOAT16": (np.float16, "read_fp16_data"),
    "FLOAT32": (np.float32, "read_float_data"),
    "INT8": (np.int8, "read_int8_data"),
    "INT16": (np.int16, "read_int16_data"),
    "INT32": (np.int32, "read_int32_data"),
    "UINT8": (np.uint8, "read_uint8_data"),
    "UINT16": (np.uint16, "read_uint16_data"),
    "UINT32": (np.uint32, "read_uint32_data"),
    "BOOL": (np.bool_, ""),
}


def kind_of(tensor_type: Any) -> str:
    """The data type of a value's type, such as `FLOAT16`."""
    return str(MIL_pb2.DataType.Name(tensor_type.dataType))


def shape_of(tensor_type: Any) -> tuple[int | None, ...]:
    """Its shape; None for an axis whose length is free."""
    return tuple(
        dimension.constant.size if dimension.WhichOneof("dimension") == "constant" else None
        for dimension in tensor_type.dimensions
    )


def fits(shape: tuple[int, ...], declared: tuple[int | None, ...]) -> bool:
    """Whether a value has its declared shape."""
    return len(shape) == len(declared) and all(
        there in (found, None) for found, there in zip(shape, declared, strict=True)
    )


def as_kind(x: Tensor, kind: str) -> Tensor:
    """`x` as the program would keep it: rounded, or checked to fit."""
    if kind == "FLOAT16":
        return x.half().float()
    if kind == "FLOAT32":
        return x.float()
    if kind == "BOOL":
        return x.bool()
    assert not x.is_floating_point()
    limits = np.iinfo(KINDS[kind][0])
    assert x.numel() == 0 or (limits.min <= int(x.min()) and int(x.max()) <= limits.max)
    return x.long()


class Values:
    """Reads the values of one model; blobs lie beside its file."""

    def __init__(self, model: Path) -> None:
        self._folder = model.parent
        self._readers: dict[str, Any] = {}

    def read(self, value: Any) -> Tensor | str:
        """A value of the protobuf: a tensor, or a text."""
        tensor_type = value.type.tensorType
        kind, shape = kind_of(tensor_type), shape_of(tensor_type)
        assert None not in shape, "a constant of free length"
        if kind == "STRING":
            (text,) = value.immediateValue.tensor.strings.values
            return str(text)
        dtype, method = KINDS[kind]
        if value.WhichOneof("value") == "blobFileValue":
            blob = value.blobFileValue
            numbers = getattr(self._reader(blob.fileName), method)(blob.offset)
            found = np.asarray(numbers).view(dtype)
        else:
            tensor = value.immediateValue.tensor
            held = getattr(tensor, tensor.WhichOneof("value")).values
            found = np.frombuffer(held, dtype) if isinstance(held, bytes) else np.array(held, dtype)
        wide = {"f": np.float32, "b": np.bool_}.get(found.dtype.kind, np.int64)
        return torch.from_numpy(found.astype(wide)).reshape(shape)

    def _reader(self, name: str) -> Any:
        if name not in self._readers:
            path = name.replace("@model_path", str(self._folder))
            self._readers[name] = _BlobStorageReader(path)
        return self._readers[name]
