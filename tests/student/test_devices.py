"""What this machine computes with."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from nanocap.student.devices import keep_freed_memory
from nanocap.student.trunk import Trunk

if sys.argv[1] == "kept":
    keep_freed_memory()
trunk, pixels = Trunk().eval(), torch.rand(4, 3, 224, 224)
with torch.no_grad():
    for _ in range(5):  # the first ask the kernel for their pages in any case
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        trunk.lower(pixels)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of the GNU C library alone")
def test_freed_memory_is_not_asked_for_again() -> None:
    faults = {}
    for how in ("kept", "given back"):
        run = [sys.executable, "-c", FAULTS, how]
        faults[how] = int(subprocess.run(run, capture_output=True, text=True, check=True).stdout)
    assert faults["kept"] < faults["given back"] / 20  # some 30,000, fewer where pages are larger
