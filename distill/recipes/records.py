"""Tables of TOML as frozen records, and back: what is unknown or of a wrong type is refused."""

from __future__ import annotations

import dataclasses
import difflib
import sys
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from nanocap.errors import RecipeError
from nanocap.files.regular_file import read_file

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")

LARGEST = 1e15  # of a number: no recipe needs more, and arithmetic on larger ones fails


def read_toml(path: Path) -> dict[str, Any]:
    """The table in a file.

    Raises:
        RecipeError: it cannot be read, or is no TOML.
    """
    try:
        text = read_file(path).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read ({error})") from error
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError
        raise RecipeError(f"{path}: not valid TOML: {error}") from error


def build(cls: type[T], table: object, where: str) -> T:
    """A frozen dataclass from a TOML table, recursively, refusing what does not fit."""
    if not isinstance(table, dict):
        raise RecipeError(f"{where or 'the recipe'} must be a table")
    hints = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for key in table:
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"
            raise RecipeError(f"unknown key {key!r} in {where or 'the recipe'}{hint}")
    values = {k: _convert(hints[k], v, f"{where}.{k}".lstrip(".")) for k, v in table.items()}
    for f in dataclasses.fields(cls):  # type: ignore[arg-type]
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and f.name not in values:
            raise RecipeError(f"{where or 'the recipe'} lacks the key {f.name!r}")
    return cls(**values)


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin is tuple:
        if not isinstance(value, list):
            raise RecipeError(f"{where} must be a list")
        return tuple(
            _convert(typing.get_args(hint)[0], v, f"{where}[{i}]") for i, v in enumerate(value)
        )
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, where)
    if origin is not None and not isinstance(hint, types.UnionType):
        hint = origin
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise RecipeError(f"{where} must be of type {hint.__name__.lower()}, not {value!r}")
    if hint in (int, float) and not 0 <= value < LARGEST:
        what = "negative" if value < 0 else f"{LARGEST:.0e} or more" if value >= LARGEST else "NaN"
        raise RecipeError(f"{where} must not be {what}, but is {value}")
    return value


def chosen(value: Any) -> Any:
    """A frozen record as plain data, without what is at its default."""
    if isinstance(value, tuple):
        return [chosen(one) for one in value]
    if not dataclasses.is_dataclass(value):
        return value
    return {
        f.name: chosen(getattr(value, f.name))
        for f in dataclasses.fields(value)
        if getattr(value, f.name) != f.default
    }
