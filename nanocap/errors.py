"""Every error that nanocap raises on purpose: typed, one line, with the input and the remedy."""

from __future__ import annotations

from typing import Any


def one_line(text: object) -> str:
    """`text` with line breaks, tabs and other unprintable characters written as escapes.

    File names and other people's messages end up in our errors; none of them may break the line.
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode("ascii")
        for c in str(text)
    )


class NanocapError(Exception):
    """Base of all errors of nanocap. `str(error)` is one line: what, which input, what to do."""

    exit_code = 1  # what the command line exits with

    def __init__(self, message: object) -> None:
        super().__init__(one_line(message))


class ImageError(NanocapError):
    """An image is missing, damaged, too large or of a kind that cannot be read."""


class ImageWarning(UserWarning):
    """An image is read, but something in its file could not be used, such as its colour profile."""


class BundleError(NanocapError):
    """A bundle is missing, incomplete, altered or unsafe."""


class EngineError(NanocapError):
    """An engine cannot run the artifact that it was given."""


class EngineWarning(UserWarning):
    """An engine runs, but not as it was asked to: on other hardware, or slower."""


class DataError(NanocapError):
    """A data set is missing, damaged or of an unknown kind."""


class RecipeError(NanocapError):
    """A training recipe holds an unknown key or a value that cannot be."""

    exit_code = 2


class OptionError(NanocapError, ValueError):
    """An argument of a call or of a command is outside what it may be."""

    exit_code = 2


class MissingExtraError(NanocapError, ImportError):
    """A part of nanocap was asked for whose optional packages are not installed.

    Args:
        part: what was asked for, as the reader knows it, such as `nanocap distill`.
        extra: the extra that brings its packages, such as `distill`.
        package: the first package that was missed, where it is known.
    """

    def __init__(self, part: str, extra: str, package: str | None = None) -> None:
        missing = f"the package {package}" if package else "packages"
        super().__init__(
            f"{part} needs {missing} that a bare install leaves out:"
            f" run pip install 'nanocap[{extra}]'"
        )
        self.extra = extra
        self._arguments = (part, extra, package)

    def __reduce__(self) -> tuple[Any, ...]:  # a pool of processes hands errors over as pickles
        return type(self), self._arguments
