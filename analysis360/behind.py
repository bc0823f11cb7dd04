"""Results written one step behind: while the next sequences are scored, those before go to disk."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Behind:
    """Does what it is handed, in order, in a thread of its own; at most one thing waits to be done.

    What went wrong is raised when the next thing is handed over, or at the end.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "behind")
        self._last: Future[None] | None = None
        self.seconds = 0.0
        """Time spent so far."""

    def put(self, work: Callable[[], None]) -> None:
        """Hand over; waits for what was handed over before, and raises what that raised."""
        try:
            self.settle()
        finally:
            self._last = self._pool.submit(self._timed, work)

    def close(self) -> None:
        """Wait until all is done, and raise what the last thing raised."""
        try:
            self.settle()
        finally:
            self._pool.shutdown()

    def settle(self) -> None:
        """Wait until what was handed over is done, and raise what that raised."""
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def _timed(self, work: Callable[[], None]) -> None:
        began = time.monotonic()
        try:
            work()
        finally:
            self.seconds += time.monotonic() - began
