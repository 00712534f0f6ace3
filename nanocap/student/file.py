"""A module with its dimensions as one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from nanocap.errors import NanocapError
from nanocap.files.whole_file import whole_file

M = TypeVar("M", bound=nn.Module)


def save_module(
    path: Path, module: nn.Module, dimensions: dict[str, Any], metadata: dict[str, str] | None
) -> None:
    """Write weights and dimensions as one file, whole or not at all."""
    header = {**(metadata or {}), "dimensions": json.dumps(dimensions)}
    with whole_file(path) as partial:
        save_file({k: v.contiguous() for k, v in module.state_dict().items()}, partial, header)


def load_module(
    path: Path, build: Callable[[dict[str, Any]], M], missing: str, kind: str, prefix: str = ""
) -> tuple[M, dict[str, str]]:
    """Read what `save_module` wrote: the module in eval mode, and the file's metadata.

    Args:
        build: the module of these dimensions; raises NanocapError where they do not fit.
        missing, kind: what there is none of, and what the file is not, in messages.
        prefix: read only the tensors whose names start so.
    Raises:
        NanocapError: the file is missing, damaged, or of another kind.
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError("not a regular file")
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
            state = {name.removeprefix(prefix): file.get_tensor(name) for name in names}
        dimensions = json.loads(metadata["dimensions"])
        if not isinstance(dimensions, dict):
            raise ValueError("its dimensions are no table")
        module = build(dimensions)
        module.load_state_dict(state)
    except FileNotFoundError:
        raise NanocapError(f"{path}: no such {missing}") from None
    except (
        NanocapError,
        SafetensorError,
        LookupError,
        RuntimeError,
        ValueError,
        OSError,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise NanocapError(f"{path}: not a {kind}'s checkpoint ({reason})") from error
    return module.eval(), metadata
