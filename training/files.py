"""Files that are complete when they exist: written aside, then renamed."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.errors import TrainingError

__all__ = ["file_sha256", "folder_aside", "only_one", "synchronise", "write_aside"]


def write_aside(path: Path, data: bytes) -> None:
    """Write a whole file, or none of it: a reader never meets half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


@contextmanager
def folder_aside(path: Path) -> Iterator[Path]:
    """Fill a temporary folder inside the `with`; it takes its name only when nothing failed."""
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    for file in partial.rglob("*"):
        if file.is_file():
            synchronise(file)
    partial.rename(path)


def synchronise(file: Path) -> None:
    """What was written to a file is on disk."""
    with file.open("rb") as handle:
        os.fsync(handle.fileno())


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Keep a second command out of the folder; the lock goes with the process, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainingError(
                folder,
                expected="a folder no other command is writing",
                found="one that is",
                fix="wait for it to end or choose another --out",
            ) from None
        yield
    finally:
        os.close(lock)


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
