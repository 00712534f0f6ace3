"""Exported graphs to one `.pte`, and what of them runs outside the delegate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import ExecutorchBackendConfig, to_edge_transform_and_lower
from executorch.exir.passes import MemoryPlanningPass
from torch import fx
from torch.export import ExportedProgram

from nanocap.runtime.engines.executorch import quiet

# What is slow outside the delegate: products, and moving what is large
HEAVY = ("aten.linear", "aten.bmm", "aten.convolution", "aten.permute_copy")
DELEGATE = "executorch_call_delegate"
NO_WORK = ("getitem", "sym_size")  # they name a result or its length


class Heavy(XnnpackPartitioner):  # type: ignore[misc]  # its package is not looked into
    """Gives the delegate what is heavy: the few sums of a search are done before a call begins."""

    def generate_partitions(self, program: ExportedProgram) -> list[Any]:
        """See `ConfigerationBasedPartitioner`."""
        parts = super().generate_partitions(program)
        return [p for p in parts if any(_calls(n).startswith(HEAVY) for n in p.nodes)]


@dataclass(frozen=True)
class Delegation:
    """How a method is split.

    Attributes:
        delegates: calls of XNNPACK.
        outside: operators beside them, and how many of each.
    """

    delegates: int
    outside: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        """For a manifest."""
        return {"delegates": self.delegates, "outside": dict(self.outside)}


def lower(
    programs: Mapping[str, ExportedProgram], constants: Mapping[str, int]
) -> tuple[bytes, dict[str, Delegation]]:
    """The `.pte` with a method a program and a method a constant, and how each program is split."""
    with quiet():
        edge = to_edge_transform_and_lower(
            dict(programs),
            partitioner=[Heavy()],
            constant_methods=dict(constants),
        )
        split = {name: _delegation(edge.exported_program(name)) for name in programs}
        # inputs are used where they lie, not copied into a place of their own
        planning = MemoryPlanningPass(alloc_graph_input=False)
        done = edge.to_executorch(ExecutorchBackendConfig(memory_planning_pass=planning))
        return bytes(done.buffer), split


def _delegation(program: ExportedProgram) -> Delegation:
    calls = Counter(
        _calls(node) for node in program.graph_module.graph.nodes if node.op == "call_function"
    )
    outside = {
        name: count
        for name, count in sorted(calls.items())
        if name != DELEGATE and not name.startswith(NO_WORK)
    }
    return Delegation(calls[DELEGATE], outside)


def _calls(node: fx.Node) -> str:
    """The name of the operator."""
    return getattr(node.target, "__name__", str(node.target)).removesuffix(".default")
