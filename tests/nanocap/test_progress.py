"""Progress on a terminal and in a file of messages."""

from __future__ import annotations

import io
from contextlib import redirect_stderr

import pytest

from nanocap.cli.output import Lines
from nanocap.progress import CLEAR_LINE, Progress, progress, tracked


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class Terminal(io.StringIO):
    """Standard error as a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_file_of_messages_is_not_flooded(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    part = Progress(3600, "training maps", plain=True, now=clock)
    for second in range(1, 601):
        clock.seconds = float(second)
        part.step(note=f"loss {second}")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "training maps: 10/3600  1.0/s  59:50 left  loss 10"
    assert [int(line.split()[2].partition("/")[0]) for line in lines[:4]] == [10, 30, 70, 130]
    assert len(lines) == 11  # in ten minutes


def test_nothing_is_printed_where_nobody_asks(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    part = Progress(9, now=clock)
    clock.seconds = 100.0
    part.step()
    assert capsys.readouterr().err == ""


def test_a_terminal_has_one_line_that_is_redrawn() -> None:
    clock = Clock()
    with redirect_stderr(Terminal()) as terminal:
        part = Progress(1000, "caching maps", now=clock)
        for step in range(1000):
            clock.seconds = step / 1000  # a thousand in a second
            part.step()
        part.end()
    shown = terminal.getvalue()
    assert shown.count("\n") == 1
    assert 9 <= shown.count(CLEAR_LINE) <= 14, "ten states a second, not a thousand"
    assert "caching maps: 1000/1000" in shown.split(CLEAR_LINE)[-1]


def test_a_part_has_its_name_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(tracked("ab", "reading")) == ["a", "b"]
    with pytest.raises(ValueError, match="broken"), progress("writing", 9):
        raise ValueError("broken")
    assert capsys.readouterr().err == "reading\nwriting\n"


def test_a_bar_below_lines_goes_on_and_begins_anew() -> None:
    with redirect_stderr(Terminal()) as terminal:
        lines = Lines()
        lines.line("choosing")
        for done in range(1, 11):
            lines.count(done, 10)
        lines.line("comparing")
        for done in (16, 32, 40):
            lines.count(done, 40)
    shown = terminal.getvalue()
    assert shown.index("10/10") < shown.index("comparing") < shown.index("40/40")
