"""Standard streams of programs that were started without some, as by cron or a desktop."""

from __future__ import annotations

import os
import sys


def fill_streams() -> None:
    """Give the process those of its standard streams that are closed.

    Otherwise the next file that is opened would take the number of standard error, and what a
    library writes there would end up in it. Messages on such a standard error are lost, writing
    captions to such a standard output fails, and `sys.stdin` stays None.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            readable = number != 2
            taken = os.open(os.devnull, os.O_RDONLY if readable else os.O_WRONLY)
            if taken != number:
                os.dup2(taken, number)
                os.close(taken)
            if number:
                setattr(sys, name, open(number, "w", closefd=False))  # noqa: SIM115
