"""Pruning in one shot by the size of the weights: needs no photos, and is what UPop has to beat."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from nanocap.distill.pruning.axes import find_axes
from nanocap.distill.pruning.budget import check_keep, choose, keep_best
from nanocap.distill.pruning.slicing import slice_student
from nanocap.student import Student
from nanocap.student.student import count_parameters


def prune_by_magnitude(student: Student, keep: float) -> Student:
    """A student without the channels whose weights are smallest.

    Args:
        keep: share that stays of the parameters that may go; see `axes`.
    Raises:
        OptionError: `keep` is no share, or too small.
    """
    axes = find_axes(student.dimensions)
    check_keep(axes, keep)
    state = student.state_dict()
    magnitude = {site.masked: _size(state, site.tensors) for axis in axes for site in axis.sites}
    counts = choose(axes, magnitude, keep)
    return slice_student(student.dimensions, state, keep_best(axes, magnitude, counts))


def prune_file(path: Path, keep: float) -> tuple[Student, dict[str, str], int]:
    """The same of a finished student's file.

    Returns:
        the pruned student, the metadata to save it with, and how many parameters it had before.
    Raises:
        OptionError: `keep` is no share, or too small.
        NanocapError: the checkpoint is missing or damaged.
    """
    student, metadata = Student.load(path)
    training = json.loads(metadata.get("training", "{}"))
    shares = [*training.get("pruned_by_magnitude", []), keep]
    kept: dict[str, str] = {k: v for k, v in metadata.items() if k in ("tokenizer", "controls")}
    note = json.dumps({**training, "pruned_by_magnitude": shares})
    pruned = prune_by_magnitude(student, keep)
    return pruned, {**kept, "training": note}, count_parameters(student)


def _size(state: Mapping[str, Tensor], tensors: tuple[tuple[str, int], ...]) -> Tensor:
    """Root of the sum of squares of all weights that hold a channel, [channels]."""
    by_channel = [state[name].double().movedim(axis, 0) for name, axis in tensors]
    squares = [tensor.square().reshape(len(tensor), -1).sum(1) for tensor in by_channel]
    return torch.stack(squares).sum(0).sqrt()
