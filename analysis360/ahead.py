"""Checkpoints brought one ahead of their use: while one is scored, the next is downloaded."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence

from analysis360.series import Checkpoint


class Ahead:
    """Fetches checkpoints in order in a thread of its own, never more than one beyond the one in use.

    A daemon, and what it has half fetched is kept: an interrupted program ends at once.
    """

    def __init__(self, checkpoints: Sequence[Checkpoint]) -> None:
        self._checkpoints = checkpoints
        self._permits = threading.Semaphore(1)
        self._outcomes: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._next, self._closed = 0, threading.Event()
        threading.Thread(target=self._run, name="ahead", daemon=True).start()

    def take(self) -> None:
        """Wait until the next checkpoint is there; the one after it is begun. Raises what its fetch raised."""
        outcome = self._outcomes.get()
        self._next += 1
        self._permits.release()
        if outcome is not None:
            raise outcome

    def close(self) -> None:
        """Begin nothing more, and let go of what was fetched and not taken."""
        self._closed.set()
        self._permits.release()
        while not self._outcomes.empty():
            if self._outcomes.get() is None:
                self._checkpoints[self._next].release()
            self._next += 1

    def _run(self) -> None:
        for checkpoint in self._checkpoints:
            self._permits.acquire()
            if self._closed.is_set():
                return
            outcome: BaseException | None = None
            try:
                checkpoint.fetch()
            except BaseException as error:
                outcome = error
            if self._closed.is_set():
                checkpoint.release()
                return
            self._outcomes.put(outcome)
