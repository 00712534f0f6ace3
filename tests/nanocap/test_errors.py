"""Errors are one line, and survive the way between processes."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from nanocap import errors
from nanocap.errors import ImageError, MissingExtraError, NanocapError

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, NanocapError) and kind is not MissingExtraError
]


@pytest.mark.parametrize(
    "error",
    [
        *(kind("a.jpg: what is wrong\nwith\tit") for kind in KINDS),
        MissingExtraError("nanocap distill", "distill", "torch"),
        MissingExtraError("nanocap distill", "distill"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_is_copied_and_pickled(error: NanocapError) -> None:
    for again in (pickle.loads(pickle.dumps(error)), copy.deepcopy(error)):
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert again.exit_code == error.exit_code
        assert vars(again) == vars(error)
    assert "\n" not in str(error)


def test_no_name_breaks_the_line() -> None:
    assert str(ImageError("a\nb\x1b[31m\u2028c: gone")) == "a\\nb\\x1b[31m\\u2028c: gone"
