"""Where a run stands, in one safetensors file that is replaced whole or not at all."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from nanocap.errors import DataError
from nanocap.files.whole_file import whole_file
from nanocap.student import Student

MOMENTS = ("exp_avg", "exp_avg_sq")  # of AdamW


@dataclass(frozen=True)
class Position:
    """The next step to do."""

    stage: int
    step: int
    fingerprint: str


def save_checkpoint(
    path: Path,
    position: Position,
    student: Student,
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Write weights, averaged weights and the optimizer's moments."""
    tensors = {f"student.{name}": tensor for name, tensor in student.state_dict().items()}
    tensors |= {f"average.{name}": tensor for name, tensor in average.items()}
    for name, parameter in student.named_parameters():
        if parameter in optimizer.state:
            for moment in MOMENTS:
                tensors[f"{moment}.{name}"] = optimizer.state[parameter][moment]
    header = {
        "dimensions": json.dumps(student.dimensions.to_dict()),
        "stage": str(position.stage),
        "step": str(position.step),
        "fingerprint": position.fingerprint,
    }
    with whole_file(path) as partial:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, partial, header)


def read_position(path: Path) -> Position | None:
    """The position in a checkpoint; None if there is none. Raises DataError for damage."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
        return Position(int(header["stage"]), int(header["step"]), header["fingerprint"])
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise DataError(f"{path}: damaged checkpoint; delete it to redo this stage") from error


def load_checkpoint(
    path: Path, student: Student, average: dict[str, Tensor], optimizer: torch.optim.Optimizer
) -> None:
    """Restore what `save_checkpoint` wrote, in place."""
    position = read_position(path)
    assert position is not None
    names = {parameter: name for name, parameter in student.named_parameters()}
    with safe_open(path, framework="pt") as file, torch.no_grad():
        for name, tensor in student.state_dict().items():
            tensor.copy_(file.get_tensor(f"student.{name}"))
        for name, tensor in average.items():
            tensor.copy_(file.get_tensor(f"average.{name}"))
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                # where the fused optimizer wants it: beside the parameter
                state = {"step": torch.tensor(float(position.step), device=parameter.device)}
                for moment in MOMENTS:
                    saved = file.get_tensor(f"{moment}.{names[parameter]}")
                    state[moment] = torch.empty_like(parameter).copy_(saved)
                optimizer.state[parameter] = state
