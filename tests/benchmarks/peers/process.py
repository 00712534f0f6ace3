"""A contender in a process of its own: both ends of the pipe between it and the benchmark.

The benchmark's end imports nothing heavy, because on Linux a child's peak memory starts at its
parent's size.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

UNIT = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, KiB on Linux
FOLDER = Path(__file__).parent
TURN_S = 0.5  # a turn lasts so long, but at least one caption
WARM_UP = 2

PREPARE, SERVE, GO = "prepare", "serve", "go"


class ContenderError(Exception):
    """Why a contender cannot take part, in one line."""


class Child:
    """The benchmark's end. A child lives until `close`, idle between its turns.

    Args:
        verb: `PREPARE` or `SERVE`.
        name: of the contender.
        work: folder of the prepared models; the child's own messages go to a log there.
        arguments: what the verb takes besides, see `main`.
    """

    def __init__(self, verb: str, name: str, work: Path, *arguments: object) -> None:
        self.log = work / f"{name}.log"
        command = [sys.executable, str(FOLDER), verb, name, str(work), *map(str, arguments)]
        quiet = {
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_VERBOSITY": "error",
            "PYTHONWARNINGS": "ignore",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        with self.log.open("a", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                command,
                env=os.environ | quiet,
                cwd=work,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def answer(self) -> dict[str, Any]:
        """The child's next answer; raises ContenderError where it says why not, or has died."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ContenderError(f"its process ended by itself; see {self.log}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ContenderError(answer["error"])
        return answer

    def turn(self) -> list[float]:
        """Milliseconds of each caption of one turn."""
        assert self._process.stdin is not None
        try:
            print(GO, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise ContenderError(f"its process ended by itself; see {self.log}") from None
        times: list[float] = self.answer()["ms"]
        return times

    def close(self) -> int:
        """End the child; returns its peak resident bytes, as the operating system counted them."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        _, status, usage = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        return usage.ru_maxrss * UNIT


def main(arguments: list[str]) -> int:
    """The child's end: `prepare NAME WORK`, or `serve NAME WORK PHOTO THREADS TOKENS`.

    TOKENS is 0 where the contender decides. Answers are JSON, one object a line.
    """
    # Libraries print what they like; only answers may go through the pipe.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    verb, name, work, *rest = arguments
    try:
        if verb == PREPARE:
            _prepare(name, Path(work), answers)
        else:
            photo, threads, tokens = rest
            _serve(name, Path(work), Path(photo), int(threads), int(tokens) or None, answers)
    except BrokenPipeError:
        return 1  # the benchmark is gone
    except Exception as error:
        import traceback

        traceback.print_exc()
        reason = " ".join(str(error).split())[:200]
        _say(answers, {"error": f"{type(error).__name__}: {reason}"})
        return 1
    return 0


def _prepare(name: str, work: Path, answers: IO[str]) -> None:
    from contenders import CONTENDERS

    CONTENDERS[name].prepare(work)
    _say(answers, {})


def _serve(
    name: str, work: Path, photo: Path, threads: int, tokens: int | None, answers: IO[str]
) -> None:
    """Load, warm up, say how many tokens a caption has, then caption at every line of input."""
    from contenders import CONTENDERS, Task

    contender = CONTENDERS[name]
    caption = contender.load(work, Task(photo, tokens, threads))
    count = caption()
    for _ in range(WARM_UP - 1):
        caption()
    if tokens not in (None, count):
        raise ValueError(f"generated {count} tokens where {tokens} were asked for")
    _say(answers, {"tokens": count, "bytes": contender.size(work)})
    for _ in sys.stdin:
        _say(answers, {"ms": _turn(caption, count)})


def _turn(caption: Callable[[], int], count: int) -> list[float]:
    times: list[float] = []
    while sum(times) < 1000 * TURN_S:
        start = time.perf_counter()
        generated = caption()
        times.append(1000 * (time.perf_counter() - start))
        if generated != count:
            raise ValueError(f"generated {generated} tokens, and {count} before")
    return times


def _say(answers: IO[str], answer: dict[str, Any]) -> None:
    print(json.dumps(answer), file=answers, flush=True)
