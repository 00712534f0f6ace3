"""Reading JSON that nobody vouches for: every value is checked before it is used."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from nanocap.errors import BundleError


def parse_object(data: bytes, where: str) -> Fields:
    """The JSON object in `data` (UTF-8).

    Refused with one BundleError that names `where`: other JSON, a key that stands twice (two
    readers could each take another one), NaN and infinity, nesting deep enough to end the process.
    """

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(items)
        if len(values) != len(items):
            raise ValueError("a key appears twice in one object")
        return values

    def constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not a number of JSON")

    try:
        values = json.loads(data.decode("utf-8"), object_pairs_hook=pairs, parse_constant=constant)
    except RecursionError:
        raise BundleError(f"{where}: nested too deeply; get the bundle again") from None
    except ValueError as error:  # also JSONDecodeError, UnicodeDecodeError
        raise BundleError(f"{where}: not valid JSON ({error}); get the bundle again") from None
    if not isinstance(values, dict):
        raise BundleError(f"{where}: must be a JSON object; get the bundle again")
    return Fields(values, where)


@dataclass(frozen=True)
class Fields:
    """A JSON object whose values are read by type; `where` is its name in messages."""

    values: Mapping[str, Any]
    where: str

    def fail(self, key: str, expected: str) -> NoReturn:
        """Raise the BundleError about `key`."""
        found = json.dumps(self.values[key])[:60] if key in self.values else "nothing"
        raise BundleError(
            f"{self.where}: {key} must be {expected}, found {found}; get or build the bundle again"
        )

    def text(self, key: str) -> str:
        """A string that is not empty."""
        value = self.values.get(key)
        if not isinstance(value, str) or not value:
            self.fail(key, "a text")
        return value

    def whole(self, key: str, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        value = self.values.get(key)
        if type(value) is not int or not low <= value <= high:
            self.fail(key, f"a whole number from {low} to {high}")
        return value

    def number(self, key: str, low: float, high: float) -> float:
        """A number from `low` to `high`, both included."""
        value = self.values.get(key)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high:
            return float(value)  # NaN and infinity fail the comparison
        self.fail(key, f"a number from {low:g} to {high:g}")

    def numbers(self, key: str, count: int) -> tuple[float, ...]:
        """A list of exactly `count` finite numbers."""
        value = self.values.get(key)
        if (
            not isinstance(value, list)
            or len(value) != count
            or not all(type(v) in (int, float) and abs(v) < 1e9 for v in value)
        ):
            self.fail(key, f"a list of {count} numbers")
        return tuple(float(v) for v in value)

    def wholes(self, key: str, count: int, low: int, high: int) -> tuple[int, ...]:
        """A list of exactly `count` whole numbers from `low` to `high`, both included."""
        value = self.values.get(key)
        if (
            not isinstance(value, list)
            or len(value) != count
            or not all(type(v) is int and low <= v <= high for v in value)
        ):
            self.fail(key, f"a list of {count} whole numbers from {low} to {high}")
        return tuple(value)

    def texts(self, key: str, *, empty: bool = False) -> tuple[str, ...]:
        """A list of strings, which may be empty ones where `empty` says so."""
        value = self.values.get(key)
        if not isinstance(value, list) or not all(
            isinstance(v, str) and (v or empty) for v in value
        ):
            self.fail(key, "a list of texts")
        return tuple(value)

    def truth(self, key: str) -> bool:
        """True or false."""
        value = self.values.get(key)
        if not isinstance(value, bool):
            self.fail(key, "true or false")
        return value

    def inner(self, key: str) -> Fields:
        """An object inside this one."""
        value = self.values.get(key)
        if not isinstance(value, dict):
            self.fail(key, "an object")
        return Fields(value, f"{self.where}: {key}")

    def objects(self, key: str) -> Iterator[Fields]:
        """The objects of a list."""
        value = self.values.get(key)
        if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
            self.fail(key, "a list of objects")
        for index, item in enumerate(value):
            yield Fields(item, f"{self.where}: {key}[{index}]")
