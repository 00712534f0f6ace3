"""The average of several finished students' weights, as one student."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from nanocap.errors import OptionError
from nanocap.student import Student

LISTED_ONCE = ("data", "weights")  # of a model card


def average(paths: Sequence[Path], weights: Sequence[float]) -> tuple[Student, dict[str, str]]:
    """Their weighted mean, and the metadata to save it with.

    It helps where the students lie in one basin: runs that began with the same weights and the same
    order of photos, or a stage and the one before it. Elsewhere the mean captions nothing.
    Wortsman et al., "Model soups" (2022) and "Robust fine-tuning of zero-shot models" (2022).

    Args:
        weights: one for each student; they are scaled to sum to one.
    Raises:
        OptionError: the students differ in dimensions or tokenizer, or the weights do not fit.
        NanocapError: a checkpoint is missing or damaged.
    """
    if len(paths) < 2 or len(weights) != len(paths):
        raise OptionError("an average needs two students or more, and a weight for each")
    if min(weights) < 0 or not sum(weights) > 0:
        raise OptionError(f"weights must not be negative, and not all zero: {list(weights)}")
    loaded = [Student.load(path) for path in paths]
    mean, metadata = loaded[0]
    for path, (student, theirs) in zip(paths[1:], loaded[1:], strict=True):
        same = student.dimensions == mean.dimensions
        if not same or theirs.get("tokenizer") != metadata.get("tokenizer"):
            raise OptionError(
                f"{path}: of other dimensions or another tokenizer than {paths[0]}: students are"
                " averaged only where every weight means the same"
            )
    shares = [weight / sum(weights) for weight in weights]
    states = [student.state_dict() for student, _ in loaded]
    with torch.no_grad():
        total = {
            name: sum(share * state[name] for share, state in zip(shares, states, strict=True))
            for name in states[0]
        }
    mean.load_state_dict(total)
    kept = {key: value for key, value in metadata.items() if key in ("tokenizer", "controls")}
    return mean, {**kept, "training": json.dumps(_training(loaded, shares))}


def _training(
    loaded: Sequence[tuple[Student, dict[str, str]]], shares: Sequence[float]
) -> dict[str, object]:
    """What the model card needs: the first one's, the data of all, and the parts with shares."""
    parts = [json.loads(metadata.get("training", "{}")) for _, metadata in loaded]
    data = {entry["name"]: entry for part in parts for entry in part.get("data", [])}
    averaged = [
        {"share": round(share, 4), **{k: v for k, v in part.items() if k not in LISTED_ONCE}}
        for share, part in zip(shares, parts, strict=True)
    ]
    return {**parts[0], "data": list(data.values()), "averaged": averaged}
