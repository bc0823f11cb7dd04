"""Checkpoints brought one ahead of their use: while one is scored, the next is downloaded."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
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
        self._lock = threading.Lock()
        self._closed = False
        self._fetched: set[int] = set()
        """Places of those that are held and were not yet taken."""
        self._next = 0
        self.seconds = 0.0
        """Time spent fetching so far, most of it while an engine was at work."""
        threading.Thread(target=self._run, name="ahead", daemon=True).start()

    def take(self) -> None:
        """Wait until the next checkpoint is there; the one after it is begun. Raises what its fetch raised."""
        outcome = self._outcomes.get()
        with self._lock:
            self._fetched.discard(self._next)
            self._next += 1
        self._permits.release()
        if outcome is not None:
            raise outcome

    def close(self) -> None:
        """Begin nothing more, stop what is under way, and let go of what was fetched and not taken."""
        with self._lock:
            self._closed = True
            left, self._fetched = self._fetched, set()
        self._permits.release()
        for place in left:
            self._checkpoints[place].release()
        for checkpoint in self._checkpoints[self._next : self._next + 2]:
            checkpoint.place.stop()

    def _run(self) -> None:
        for place, checkpoint in enumerate(self._checkpoints):
            self._permits.acquire()
            if self._closed:
                return
            outcome: BaseException | None = None
            began = time.monotonic()
            try:
                checkpoint.fetch()
                _read_ahead(checkpoint)
            except BaseException as error:
                outcome = error
            self.seconds += time.monotonic() - began
            with self._lock:
                if self._closed:
                    if outcome is None:
                        checkpoint.release()
                    return
                if outcome is None:
                    self._fetched.add(place)
                self._outcomes.put(outcome)


def _read_ahead(checkpoint: Checkpoint) -> None:
    """Have the system bring a near checkpoint's weights from a slow disk into memory, without waiting."""
    if checkpoint.place.far or not hasattr(os, "posix_fadvise"):
        return  # what was just downloaded is in memory
    for file in checkpoint.weight_files:
        with contextlib.suppress(OSError), file.open("rb") as opened:  # whoever loads it says what is wrong
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
