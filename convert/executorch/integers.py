"""int8 through PT2E: what holds weights, and the trunk's sums, as in `quantization.int8`.

The trunk's activations have fixed scales, taken over photos, so that it stays in bytes from end to
end. Linear layers scale each row of what they are given when they are given it: one row, so that a
caption does not depend on the beams beside it. Weights have a scale a channel.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torchao.quantization.pt2e import MinMaxObserver, PerChannelMinMaxObserver, PlaceholderObserver
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer import (
    FixedQParamsQuantizationSpec,
    QuantizationAnnotation,
    QuantizationSpec,
    QuantizationSpecBase,
    Quantizer,
    SharedQuantizationSpec,
)

from nanocap.student.trunk import PIXEL_MEAN, PIXEL_STD

aten = torch.ops.aten
LEAST = 2.0**-12  # of a scale
SIGNED = {"dtype": torch.int8, "quant_min": -128, "quant_max": 127}
ACTIVATION = QuantizationSpec(
    **SIGNED,
    qscheme=torch.per_tensor_affine,
    observer_or_fake_quant_ctr=MinMaxObserver.with_args(eps=LEAST),
)
ROW = QuantizationSpec(
    **SIGNED,
    qscheme=torch.per_tensor_affine,
    is_dynamic=True,
    observer_or_fake_quant_ctr=PlaceholderObserver.with_args(eps=LEAST),
)
WEIGHT = QuantizationSpec(
    dtype=torch.int8,
    quant_min=-127,
    quant_max=127,
    qscheme=torch.per_channel_symmetric,
    ch_axis=0,
    observer_or_fake_quant_ctr=PerChannelMinMaxObserver.with_args(eps=2.0**-20),
)
# a pixel as the byte that it was, less 128
PIXEL = FixedQParamsQuantizationSpec(
    **SIGNED,
    qscheme=torch.per_tensor_affine,
    scale=1 / PIXEL_STD,
    zero_point=int(PIXEL_MEAN) - 128,
)


class Integers(Quantizer):  # type: ignore[misc]  # its package is not looked into
    """Says which values of a graph are integers."""

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        stem = True
        for node in model.graph.nodes:
            if node.target == aten.conv2d.default:
                self._convolution(node, PIXEL if stem else ACTIVATION)
                stem = False
            elif node.target == aten.add.Tensor and _inside(node) == "InvertedResidual":
                _mark(node, dict.fromkeys(node.args, ACTIVATION), ACTIVATION)
            elif node.target == aten.linear.default and _inside(node) == "Linear":
                _mark(node, {node.args[0]: ROW, node.args[1]: WEIGHT}, None)
        return model

    def validate(self, model: fx.GraphModule) -> None:
        """Nothing to refuse."""

    def _convolution(self, node: fx.Node, spec: QuantizationSpecBase) -> None:
        data, weight = node.args[:2]
        assert isinstance(data, fx.Node)
        assert isinstance(weight, fx.Node)
        if data.target == aten.pad.default:
            source = data.args[0]
            assert isinstance(source, fx.Node)
            same = SharedQuantizationSpec((source, data))
            _mark(data, {source: spec}, same)
            spec = same
        (user,) = node.users if len(node.users) == 1 else (node,)
        if user.target in (aten.relu6.default, aten.hardtanh.default):
            _mark(node, {data: spec, weight: WEIGHT}, None)
            _mark(user, {}, ACTIVATION)
        else:
            _mark(node, {data: spec, weight: WEIGHT}, ACTIVATION)


def quantize(
    program: ExportedProgram, calibration: Iterable[tuple[Tensor, ...]]
) -> torch.nn.Module:
    """The program with integers, to be exported again.

    Args:
        calibration: inputs like those it will see; any, but one at least, where nothing but
            weights has a fixed scale.
    """
    prepared: Any = prepare_pt2e(program.module(), Integers())
    with torch.no_grad():
        for inputs in calibration:
            prepared(*inputs)
        return convert_pt2e(prepared)


def _mark(
    node: fx.Node,
    inputs: dict[Any, QuantizationSpecBase],
    output: QuantizationSpecBase | None,
) -> None:
    node.meta["quantization_annotation"] = QuantizationAnnotation(
        input_qspec_map=inputs, output_qspec=output, _annotated=True
    )


def _inside(node: fx.Node) -> str:
    """The class of the module whose `forward` the node is a line of."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return str(stack[-1][1]).rpartition(".")[2].rstrip("'>") if stack else ""
