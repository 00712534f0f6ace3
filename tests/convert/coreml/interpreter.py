"""An interpreter of saved ML programs: what Core ML would compute, on any machine.

It reads an `.mlpackage` and nothing else: the manifest, the protobuf, the weights. Every operation
is computed in float32 and rounded to the type that the file gives its output, so that an fp16
program computes in fp16 with wide sums. What Core ML adds to that (sums in fp16 on some
processors, its own order of summation) stays unproven off macOS.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from coremltools.proto import Model_pb2
from PIL import Image
from torch import Tensor

from .interpreter_operators import OPERATORS
from .interpreter_values import Values, as_kind, fits, kind_of, shape_of

# What an output may be of, by the number that the file gives it.
ARRAYS = {65568: np.float32, 131104: np.int32}


@dataclass(frozen=True)
class Operation:
    """One operation whose inputs are known only when it runs."""

    compute: Callable[..., Tensor | tuple[Tensor, ...]]
    fixed: Mapping[str, Any]
    names: Mapping[str, str | list[str]]  # of values, by parameter
    outputs: tuple[tuple[str, str, tuple[int | None, ...]], ...]  # name, kind, shape

    def run(self, values: dict[str, Any]) -> None:
        inputs = {
            parameter: [values[one] for one in name] if isinstance(name, list) else values[name]
            for parameter, name in self.names.items()
        }
        computed = self.compute(**self.fixed, **inputs)
        found = computed if isinstance(computed, tuple) else (computed,)
        for value, (name, kind, shape) in zip(found, self.outputs, strict=True):
            assert fits(tuple(value.shape), shape), f"{name}: {tuple(value.shape)}"
            values[name] = as_kind(value, kind)


class Interpreter:
    """One function of a package, with the `predict` of coremltools' MLModel."""

    def __init__(self, package: Path, function: str = "main") -> None:
        manifest = json.loads((package / "Manifest.json").read_text())
        root = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"]
        path = package / "Data" / root
        self.model = Model_pb2.Model.FromString(path.read_bytes())
        self._values = Values(path)
        program = self.model.mlProgram.functions[function]
        block = program.block_specializations[program.opset]
        self._inputs = {given.name: given.type.tensorType for given in program.inputs}
        self._outputs = list(block.outputs)
        described = {each.name: each.type.multiArrayType for each in self.model.description.output}
        self._types = {name: ARRAYS[described[name].dataType] for name in self._outputs}
        self._constants: dict[str, Any] = {}
        self._operations: list[Operation] = []
        for operation in block.operations:
            self._add(operation)

    @torch.no_grad()
    def predict(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Outputs by name, float32 and int32 arrays, of arrays and PIL images by name."""
        assert set(feeds) == set(self._inputs)
        values = dict(self._constants)
        for name, given in feeds.items():
            declared = self._inputs[name]
            array = _planes(given) if isinstance(given, Image.Image) else np.array(given)
            assert fits(array.shape, shape_of(declared)), f"{name}: {array.shape}"
            values[name] = as_kind(torch.from_numpy(array), kind_of(declared))
        for operation in self._operations:
            operation.run(values)
        return {name: values[name].numpy().astype(kind) for name, kind in self._types.items()}

    def _add(self, operation: Any) -> None:
        if operation.type == "const":
            (output,) = operation.outputs
            self._constants[output.name] = self._values.read(operation.attributes["val"])
            return
        # Weights are unpacked once: of these operations the inputs may stand in the attributes.
        fixed = {
            name: self._values.read(value)
            for name, value in operation.attributes.items()
            if name != "name"
        }
        names: dict[str, str | list[str]] = {}
        for parameter, given in operation.inputs.items():
            arguments = [self._argument(one) for one in given.arguments]
            if parameter == "values":
                names[parameter] = arguments
            elif arguments[0] in self._constants:
                fixed[parameter] = self._constants[arguments[0]]
            else:
                (names[parameter],) = arguments
        outputs = tuple(
            (output.name, kind_of(output.type.tensorType), shape_of(output.type.tensorType))
            for output in operation.outputs
        )
        made = Operation(OPERATORS[operation.type], fixed, names, outputs)
        if names:
            self._operations.append(made)
        else:
            made.run(self._constants)

    def _argument(self, binding: Any) -> str:
        """The name of an argument; one that is written in place gets one."""
        if binding.WhichOneof("binding") == "name":
            return str(binding.name)
        name = f"in place {len(self._constants)}"
        self._constants[name] = self._values.read(binding.value)
        return name


def _planes(image: Image.Image) -> np.ndarray:
    """An RGB image as Core ML hands it to a program: [1, 3, height, width] from 0 to 255."""
    assert image.mode == "RGB"
    return np.asarray(image, np.float32).transpose(2, 0, 1)[None]
