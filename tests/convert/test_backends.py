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
    parity = measure(tiny.checkpoint(), backend, tiny.pixels(12, seed=3), Interpreter)
    assert is_exact(parity), parity
    assert f"| {backend} | 12 |" in table([(backend, parity, 1.0)])
    assert "| 12 of 12 |" in table([(backend, parity, 1.0)])
