"""ONNX graphs: sessions of them, what they are fed, and every tensor in them.

Shapes are read off a run. Behind a search they follow from values, such as the number of beams, and
ONNX Runtime has operators of its own: both are more than `onnx` can infer.

The package `onnx` is imported here and in `peaks.py` alone, when something is counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy.typing as npt

from nanocap.bundle.manifest import Manifest
from nanocap.errors import MissingExtraError

Shape = tuple[int, ...]
Feeds: TypeAlias = Mapping[str, npt.NDArray[Any]]

ERROR = 3  # ONNX Runtime's severity


def import_onnx() -> Any:
    """The package `onnx`. Raises MissingExtraError where it is not installed."""
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise MissingExtraError("nanocap bench", "eval", error.name) from None
    return onnx


def open_session(
    graph: bytes,
    threads: int,
    profile_prefix: str | None = None,
    entries: Mapping[str, str] | None = None,
) -> Any:
    """A session as the runtime's engine makes one, or with its profiler on.

    Args:
        entries: of ONNX Runtime's session configuration, those of an artifact.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERROR
    options.intra_op_num_threads = threads
    for key, value in {"session.force_spinning_stop": "1", **(entries or {})}.items():
        options.add_session_config_entry(key, value)
    if profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = profile_prefix
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


@dataclass(frozen=True)
class Tensor:
    """A tensor's shape and the bits of an element as it is stored (4 for int4)."""

    shape: Shape
    bits: int

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Its size, elements packed, rounded up to whole bytes."""
        return -(-self.elements * self.bits // 8)


def attributes(node: Any) -> dict[str, Any]:
    """A node's attributes as Python values."""
    onnx = import_onnx()
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def controls(manifest: Manifest, length: str | None = None) -> tuple[int, int, float]:
    """What a bundle's own search begins with: ids of quality and length, and the length penalty."""
    ids, search = manifest.controls, manifest.search
    return ids.quality[search.quality], ids.length[length or search.length], search.length_penalty


def inputs(graph: bytes) -> list[str]:
    """Names of the inputs of a graph, from the bytes of its file."""
    return [given.name for given in import_onnx().load_model_from_string(graph).graph.input]


def with_outputs(model: Any, names: Iterable[str]) -> bytes:
    """The file of an `onnx.ModelProto` that gives these inner tensors too."""
    onnx = import_onnx()
    wider = onnx.ModelProto()
    wider.CopyFrom(model)
    known = {output.name for output in model.graph.output}
    wider.graph.output.extend(
        onnx.helper.make_empty_tensor_value_info(name) for name in names if name not in known
    )
    return bytes(wider.SerializeToString())


def run_tensors(model: Any, feeds: Feeds) -> dict[str, Tensor]:
    """Every tensor of the top graph by name, from a run. Bodies of `If` and `Loop` are not entered.

    Args:
        model: an `onnx.ModelProto` that ONNX Runtime can run; it is not altered.
    """
    names = [name for node in model.graph.node for name in node.output if name]
    found = open_session(with_outputs(model, names), threads=1).run(names, dict(feeds))
    values = {**feeds, **dict(zip(names, found, strict=True))}
    tensors = {name: Tensor(value.shape, 8 * value.itemsize) for name, value in values.items()}
    for one in model.graph.initializer:
        tensors[one.name] = Tensor(tuple(one.dims), _bits(one.data_type))
    return tensors


def _bits(elem_type: int) -> int:
    onnx = import_onnx()
    name = onnx.TensorProto.DataType.Name(elem_type)
    if name.endswith("INT4") or name.startswith("FLOAT4"):
        return 4
    return 8 * int(onnx.helper.tensor_dtype_to_np_dtype(elem_type).itemsize)
