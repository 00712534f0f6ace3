"""The weights of an ML program: the file `weights/weight.bin`, as coremltools 9 writes it.

A header of 64 bytes (count, version), then for each blob 64 bytes of metadata and its data, both
aligned to 64 bytes. A program names a blob by the offset of its metadata. All little-endian.
Source: `MILBlob/Blob/StorageFormat.hpp` of coremltools.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from nanocap.convert.errors import ConversionError

HEADER = struct.Struct("<II")  # count, version
METADATA = struct.Struct("<IIQQ")  # sentinel, data type, bytes, offset of the data
ALIGNMENT = 64
VERSION = 2
SENTINEL = 0xDEADBEEF
TYPES = {1: np.float16, 2: np.float32, 3: np.uint8, 4: np.int8, 6: np.int16, 7: np.uint16}


def read_blob(weights: bytes, offset: int) -> npt.NDArray[np.generic]:
    """The values of the blob whose metadata is at `offset`, as a flat read-only array.

    Raises:
        ConversionError: there is no blob, or it is of another kind or cut off.
    """
    try:
        sentinel, kind, size, start = METADATA.unpack_from(weights, offset)
    except struct.error:
        sentinel = 0
    if sentinel != SENTINEL or kind not in TYPES or start + size > len(weights):
        raise ConversionError(f"weight.bin holds no readable blob at {offset}; convert again")
    return np.frombuffer(weights, TYPES[kind], size // np.dtype(TYPES[kind]).itemsize, start)


def read_blobs(weights: bytes) -> Iterator[npt.NDArray[np.generic]]:
    """All blobs in their order.

    Raises:
        ConversionError: the file is of another version, or damaged.
    """
    count, version = HEADER.unpack_from(weights) if len(weights) >= HEADER.size else (0, 0)
    if version != VERSION:
        raise ConversionError(f"weight.bin is of version {version}, not {VERSION}; convert again")
    offset = ALIGNMENT
    for _ in range(count):
        blob = read_blob(weights, offset)
        yield blob
        _, _, size, start = METADATA.unpack_from(weights, offset)
        offset = -(-(start + size) // ALIGNMENT) * ALIGNMENT


def unpack(packed: npt.NDArray[np.uint8], palette: int, count: int) -> npt.NDArray[np.int64]:
    """`count` indices into a palette of so many entries: the lowest bits of the first byte first.

    Raises:
        ConversionError: there are not so many.
    """
    bits = palette.bit_length() - 1
    if palette != 1 << bits or len(packed) != -(-bits * count // 8):
        raise ConversionError(f"{len(packed)} bytes are not {count} indices into {palette} values")
    ones = np.unpackbits(packed, count=bits * count, bitorder="little").reshape(count, bits)
    return ones @ (1 << np.arange(bits))
