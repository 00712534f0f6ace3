"""How the threads of torch wait: importing this, before torch, has them sleep instead of spin.

A part of the work is done when the slowest thread has done its share. Where another process holds a
core, that thread is late, and the others wait for it, hundreds of times a step: spinning, they take
from it the core that it needs. Measured on two cores (`tests/benchmarks/busy.py`), a step beside
one busy process took 3.5 times as long as a quiet one, and 1.3 to 1.8 times with threads that
sleep. The libraries read these settings when they are loaded. Whoever set them otherwise is heeded,
and processes that are started from here inherit them.
"""

from __future__ import annotations

import os

PASSIVE = {
    "OMP_WAIT_POLICY": "passive",  # of every OpenMP
    "GOMP_SPINCOUNT": "0",  # GNU's, in torch's wheels for Linux
    "KMP_BLOCKTIME": "0",  # Intel's and LLVM's: torch of conda, of macOS and Windows
}

for _name, _value in PASSIVE.items():
    os.environ.setdefault(_name, _value)
