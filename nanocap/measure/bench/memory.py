"""Peak memory of a fresh process, as the operating system counted it.

On Linux the figure is VmHWM of `/proc/self/status`, read by the process itself: `ru_maxrss`, which
a parent could read, starts at the size of the parent that forked. Elsewhere it is `ru_maxrss`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from nanocap.errors import NanocapError

STATUS = Path("/proc/self/status")
MACOS_UNIT, UNIX_UNIT = 1, 1024  # of ru_maxrss, in bytes
EPILOGUE = """
from nanocap.measure.bench.memory import own_peak_bytes
print(own_peak_bytes())
"""
CAPTION = """
import sys
from nanocap.measure.bench.child import caption_once
caption_once(*sys.argv[1:])
"""


def own_peak_bytes() -> int | None:
    """The largest resident set of this process so far; None where the system does not tell."""
    try:
        lines = STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    try:
        import resource  # not on Windows
    except ModuleNotFoundError:
        return None
    unit = MACOS_UNIT if sys.platform == "darwin" else UNIX_UNIT
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def child_peak_bytes(code: str, arguments: Sequence[str] = ()) -> int | None:
    """Peak resident bytes of a new Python process that runs `code`; None where nobody tells.

    Args:
        code: a program; what it prints is thrown away.
        arguments: its `sys.argv[1:]`.

    Raises:
        NanocapError: the program failed; with the last line that it wrote.
    """
    # from where this process imports: `-c` would put the working directory first
    prologue = f"import sys\nsys.path[:] = {sys.path!r}\n"
    command = [sys.executable, "-c", prologue + code + EPILOGUE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise NanocapError(f"the process whose memory is measured failed: {last}")
    answer = done.stdout.split()[-1]
    return None if answer == "None" else int(answer)


def caption_peak_bytes(bundle: Path, artifact: str, threads: int, photo: Path) -> int | None:
    """Peak resident bytes of a process that decodes `photo`, loads the model and captions once.

    Raises NanocapError: it cannot.
    """
    return child_peak_bytes(CAPTION, [str(bundle), artifact, str(threads), str(photo)])
