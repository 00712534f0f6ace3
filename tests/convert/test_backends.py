"""Every backend that runs here captions like the student it was made from."""

from __future__ import annotations

from typing import Any

import pytest

from nanocap.precisions import BACKENDS

from ..benchmarks.fp32_parity import is_exact, measure, table
from .coreml_interpreter import Interpreter


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_fp32_is_eager(tiny: Any, backend: str) -> None:
    parities = measure(tiny.checkpoint(), backend, tiny.pixels(8, seed=3), Interpreter)
    assert is_exact(parities), parities
    assert table({backend: parities}).endswith("| 0 of 8 | 8 of 8 |")
