"""Peak memory, of processes that need a known amount."""

from __future__ import annotations

from pathlib import Path

import pytest

from nanocap.errors import NanocapError
from nanocap.measure.bench.memory import caption_peak_bytes, child_peak_bytes, own_peak_bytes

MB = 1_000_000


def test_a_child_that_holds_200_mb_for_a_moment() -> None:
    held = child_peak_bytes("import sys\nx = b'x' * int(sys.argv[1])\ndel x", [str(200 * MB)])
    bare = child_peak_bytes("")
    assert held is not None
    assert bare is not None
    assert 200 * MB <= held < 300 * MB
    assert bare < 100 * MB


def test_the_parents_size_is_not_the_childs() -> None:
    mine = b"x" * (150 * MB)
    own, child = own_peak_bytes(), child_peak_bytes("print('and what it prints is no figure: 7')")
    assert own is not None
    assert child is not None
    assert child < len(mine) <= own


def test_a_child_that_fails_says_why() -> None:
    with pytest.raises(NanocapError, match="failed: ValueError: no such thing"):
        child_peak_bytes("raise ValueError('no such thing')")


def test_a_caption(tiny_bundle: Path, photo_files: list[Path]) -> None:
    peak = caption_peak_bytes(tiny_bundle, "onnx-fp32", 1, photo_files[0])
    assert peak is not None
    assert 20 * MB < peak < 300 * MB
