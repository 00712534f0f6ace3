"""What a student can be converted to: each backend and its precisions, the default first.

It stands here, and not beside the exporters in `nanocap.convert`, so that the command line can name
it all without torch. The exporters hold what makes each precision; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Sequence

from nanocap.errors import OptionError

PRECISIONS: dict[str, tuple[str, ...]] = {
    "onnx": ("int8", "fp32", "fp16", "int8-weights", "int8-dynamic", "int4"),
    "coreml": ("fp16", "fp32", "pal8", "pal4"),
    "executorch": ("int8", "fp32", "int4"),
}
BACKENDS = tuple(PRECISIONS)
LIBRARIES = ("transformers",)  # written as that library's own folder, which is no bundle


def every_precision(backends: Sequence[str]) -> tuple[str, ...]:
    """All that there is for these backends, as `plan` takes it."""
    return tuple(f"{backend}:{one}" for backend in backends for one in PRECISIONS[backend])


def plan(backends: Sequence[str], precisions: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The precisions to make for each backend, in the order they were named.

    Args:
        backends: each once.
        precisions: `int4` for every backend, or `onnx:int4` for one. A backend for which none is
            named gets its default.

    Raises:
        OptionError: a backend or a precision is unknown, or is named twice.
    """
    for backend in backends:
        if backend not in PRECISIONS:
            raise OptionError(f"unknown backend {backend!r}; known are {', '.join(BACKENDS)}")
    if not backends or len(set(backends)) < len(backends):
        raise OptionError(f"name each backend once, not {list(backends)}")
    wanted: dict[str, list[str]] = {backend: [] for backend in backends}
    for entry in precisions:
        only, _, precision = entry.rpartition(":")
        if only and only not in backends:
            raise OptionError(f"precision {entry!r}: nothing is converted to {only!r}")
        for backend in [only] if only else backends:
            if precision not in PRECISIONS[backend]:
                known = ", ".join(PRECISIONS[backend])
                raise OptionError(f"{backend} has no precision {precision!r}; it has {known}")
            if precision in wanted[backend]:
                raise OptionError(f"precision {precision} of {backend} is named twice")
            wanted[backend].append(precision)
    return {name: tuple(some) or PRECISIONS[name][:1] for name, some in wanted.items()}
