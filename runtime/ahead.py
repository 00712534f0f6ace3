"""Work done ahead, in a thread."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """What `work` returns, worked out by a thread of its own.

    For what happens outside Python's lock, such as hashing, or making a session. (A pool of
    `concurrent.futures` would cost 3 ms to import, as much as is gained.)
    """

    def __init__(self, work: Callable[[], T]) -> None:
        self._result: list[T] = []
        self._error: BaseException | None = None

        def run() -> None:
            try:
                self._result.append(work())
            except BaseException as error:  # it is raised where the result is asked for
                self._error = error

        self._thread = Thread(target=run)
        self._thread.start()

    def result(self) -> T:
        """What `work` returned, once it has; raises what it raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._result[0]
