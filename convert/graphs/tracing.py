"""A module of torch as an fp32 ONNX graph."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import onnx
import torch

from nanocap.convert.errors import ConversionError
from nanocap.convert.graphs.modules import AXES, Graph
from nanocap.convert.graphs.passes import clean, drop_unused
from nanocap.errors import NanocapError

OPSET = 20  # the first with Gelu; ONNX Runtime takes it from 1.17 on


def trace(
    module: Graph, example: Sequence[torch.Tensor], axes: Mapping[str, dict[int, str]] = AXES
) -> onnx.ModelProto:
    """The module as an fp32 ONNX graph.

    Args:
        axes: of its inputs and outputs, those whose length is free: by default batch and beams.
    Raises:
        ConversionError: torch's exporter refuses it, or the module itself does.
    """
    with _quiet(), torch.no_grad():
        try:
            exported = torch.export.export(
                module.eval(), tuple(example), dynamic_shapes=module.shapes(axes)
            )
            program = torch.onnx.export(
                exported,
                dynamo=True,
                optimize=True,
                input_names=list(module.inputs),
                output_names=list(module.outputs),
                opset_version=OPSET,
                verbose=False,
            )
        except NanocapError as error:  # a reducer that cannot keep so few tokens
            raise ConversionError(error) from None
        except Exception as error:
            kind = type(module).__name__
            raise ConversionError(f"torch cannot export {kind} to ONNX: {error}") from error
    assert program is not None
    return clean(drop_unused(program.model_proto), axes)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks about torchvision and about its own internals."""
    levels = {logger: logger.level for logger in map(logging.getLogger, ("torch.onnx", "onnx_ir"))}
    for logger in levels:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)
