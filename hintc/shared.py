"""Changes of the whole process that several threads may want at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Generic, TypeVar

_Made = TypeVar("_Made")


class Shared(Generic[_Made]):
    """A change that the first user makes and the last one undoes.

    Each user saving what was there before and putting it back leaves the change behind if a second
    one begins before the first has ended.

    Args:
        make: gives the context manager that makes the change, and undoes it; it may be left in
            another thread than it was entered in.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[_Made]]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._undo = ExitStack()
        self._made: list[_Made] = []
        self._users = 0

    @contextmanager
    def __call__(self) -> Iterator[_Made]:
        """Within it the change holds; the same value for all who use it at a time."""
        with self._lock:
            if not self._users:
                self._made = [self._undo.enter_context(self._make())]
            self._users += 1
            made = self._made[0]
        try:
            yield made
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._undo.close()
