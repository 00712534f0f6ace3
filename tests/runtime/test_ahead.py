"""Work done ahead, in a thread."""

from __future__ import annotations

from threading import Event, get_ident

import pytest

from nanocap.runtime.ahead import Ahead


def test_it_works_while_others_do() -> None:
    begun, go_on = Event(), Event()

    def work() -> int:
        begun.set()
        assert go_on.wait(10)
        return get_ident()

    ahead = Ahead(work)
    assert begun.wait(10)  # nobody has asked for the result yet
    go_on.set()
    assert ahead.result() != get_ident()
    assert ahead.result() == ahead.result()


def test_an_error_is_raised_where_the_result_is_asked_for() -> None:
    ahead = Ahead(lambda: 1 // 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            ahead.result()
