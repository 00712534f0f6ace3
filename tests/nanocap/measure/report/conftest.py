"""A student small enough to build bundles from, photos, and pages made without a scorer."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="session")
def tiny_students() -> ModuleType:
    """What the tests of `convert` build their tiny student with."""
    path = ROOT / "tests" / "convert" / "conftest.py"
    spec = importlib.util.spec_from_file_location("tiny_students", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tiny_students"] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module
