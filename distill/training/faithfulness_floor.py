"""The floor of faithfulness under a stage that is rewarded for more than people's captions."""

from __future__ import annotations

from pathlib import Path

import click
import safetensors.torch
from torch import Tensor

from nanocap.errors import RecipeError
from nanocap.files.whole_file import whole_file


class Floor:
    """Keeps the last weights whose captions were faithful enough, and says when to stop.

    Args:
        least: share of the objects in captions of the monitored photos that people name, too.
        kept: file of those weights.
    """

    def __init__(self, least: float, kept: Path):
        self.least, self.kept = least, kept

    def holds(self, faithful: float, average: dict[str, Tensor]) -> bool:
        """Whether the stage may go on; if so, these weights are what it falls back to.

        Raises:
            RecipeError: it began below the floor.
        """
        if faithful >= self.least:
            with whole_file(self.kept) as partial:
                state = {name: x.detach().cpu().contiguous() for name, x in average.items()}
                safetensors.torch.save_file(state, partial)
            return True
        if not self.kept.exists():
            raise RecipeError(
                f"the stage begins with {faithful:.3f} of the objects being there, below its floor"
                f" of {self.least}: lower the floor, or start from a more faithful student"
            )
        click.echo(
            f"nanocap: stopped: {faithful:.3f} of the objects are there, below the floor of"
            f" {self.least}; the weights of the last look before are kept",
            err=True,
        )
        return False

    def restore(self, average: dict[str, Tensor]) -> None:
        """The weights of the last look that was above the floor, in place."""
        for name, tensor in safetensors.torch.load_file(self.kept).items():
            average[name].copy_(tensor)
