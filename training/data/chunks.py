"""Rows to chunks: gathered from the packs through the permutation and written as JSON lines.

A chunk needs nothing of another, so processes can share the work; what they write is the same for any number.
"""

import hashlib
import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from training.data.rows import Numbers, Pack, row_line

__all__ = ["Job", "Reader", "Written", "write_chunk", "write_chunks"]


@dataclass(frozen=True)
class Job:
    """One chunk to write."""

    path: Path
    """The file."""
    packs: tuple[Pack, ...]
    """Where its rows are."""
    kind: np.dtype[np.void]
    """Of the packs' records."""
    rows: Numbers
    """The chunk's rows in order, numbered through all packs."""
    planted: dict[int, tuple[str, str]]
    """(source, line) that takes the place of a row of the chunk."""


@dataclass(frozen=True)
class Written:
    """What was written."""

    sha256: str
    """Of the file."""
    rows: Counter[str]
    """Rows of each source."""


class Reader:
    """Rows of packs by number, read from disk one by one: mapped files would count as memory."""

    def __init__(self, packs: tuple[Pack, ...], kind: np.dtype[np.void]) -> None:
        self._packs, self._kind, self._files = packs, kind, ExitStack()
        self._open = [self._files.enter_context(pack.path.open("rb", buffering=0)) for pack in packs]
        self._ends = np.cumsum([pack.rows for pack in packs])

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *error: object) -> None:
        self._files.close()

    def line(self, row: int) -> tuple[str, str]:
        """(source, line of JSON) of a row, numbered through all packs."""
        which = int(np.searchsorted(self._ends, row, side="right"))
        first = int(self._ends[which]) - self._packs[which].rows
        size = self._kind.itemsize
        data = os.pread(self._open[which].fileno(), size, (row - first) * size)
        record: Any = np.frombuffer(data, self._kind)[0]
        source = self._packs[which].source
        place = {"document": int(record["document"]), "offset": int(record["offset"])}
        return source, row_line(record["ids"].tolist(), source, **place)


def write_chunk(job: Job) -> Written:
    """Write a chunk."""
    rows: Counter[str] = Counter()
    sha = hashlib.sha256()
    with Reader(job.packs, job.kind) as reader, job.path.open("wb") as file:
        for index, row in enumerate(job.rows):
            source, line = job.planted.get(index) or reader.line(int(row))
            data = line.encode()
            rows[source] += 1
            sha.update(data)
            file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return Written(sha.hexdigest(), rows)


def write_chunks(jobs: Iterable[Job], workers: int) -> Iterator[Written]:
    """Write chunks in so many processes; what was written, in order."""
    if workers <= 1:
        yield from map(write_chunk, jobs)
        return
    executor = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_worker)
    try:
        yield from executor.map(write_chunk, jobs)
    finally:
        executor.shutdown(cancel_futures=True)


def _worker() -> None:
    """A worker ends with the command that started it, and leaves Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
