"""Places: a folder of files, on disk or on the Hub, that is listed, identified and read the same way."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from analysis360.digests import file_sha256

Span = tuple[int, int]
"""Bytes [start, stop) of a file."""


@dataclass
class Traffic:
    """What was asked of a server and what came back."""

    requests: int = 0
    """Every request, whatever its answer."""
    resolves: int = 0
    """Those that asked the Hub where a file is: the ones its rate limit counts."""
    bytes: int = 0
    """Bytes of bodies received."""
    retries: int = 0
    """Requests that were repeated because the answer failed or was not what was asked for."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(self, *, requests: int = 0, resolves: int = 0, received: int = 0, retries: int = 0) -> None:
        """Count; may be called from several threads."""
        with self._lock:
            self.requests += requests
            self.resolves += resolves
            self.bytes += received
            self.retries += retries

    def line(self) -> str:
        """One line for the end of a run."""
        asked = f"{self.requests:,} requests ({self.resolves:,} to find a file, {self.retries:,} repeated)"
        return f"from the Hub: {self.bytes / 1e6:,.1f} MB in {asked}"


class Bytes(Protocol):
    """Random access to one file, whose content does not change while it is open."""

    where: str
    """Name of the file for messages."""
    size: int
    """Bytes."""

    def read(self, spans: Sequence[Span]) -> list[bytes]:
        """The bytes of each span, whole and in order; several are read at a time where that is quicker.

        A span must lie inside the file. Raises DataError.
        """

    def close(self) -> None:
        """Give back what is open; reading afterwards is an error."""


class Place(Protocol):
    """A folder of files whose content is known by size and SHA-256."""

    @property
    def path(self) -> Path:
        """Where the files are on disk, once they were fetched."""

    @property
    def where(self) -> str:
        """Name of the place for messages."""

    @property
    def traffic(self) -> Traffic:
        """What reading here has cost so far."""

    @property
    def far(self) -> bool:
        """Whether reading costs requests: bytes and round trips are worth saving."""

    def names(self) -> list[str]:
        """Names of the files in it, `/` between folders, sorted. Raises OSError or Analysis360Error."""

    def size(self, name: str) -> int:
        """Bytes of a file. Raises FileNotFoundError."""

    def sha256(self, name: str) -> str:
        """SHA-256 of a file, hex. Raises FileNotFoundError."""

    def read(self, name: str) -> bytes:
        """A small file, whole. Raises FileNotFoundError."""

    def open(self, name: str) -> Bytes:
        """Random access to a file. Raises FileNotFoundError."""

    def fetch(self, names: Collection[str]) -> None:
        """Bring files to `path`, verified, and keep them there until `release`."""

    def release(self) -> None:
        """What was fetched may go when room is needed."""

    def stop(self) -> None:
        """A fetch that another thread has under way ends soon; what has arrived is kept."""

    def describe(self) -> dict[str, str]:
        """Provenance: which repository, branch and commit."""


class LocalFile:
    """A file on disk as `Bytes`."""

    def __init__(self, path: Path) -> None:
        self.where = str(path)
        self._file = path.open("rb", buffering=0)
        self.size = os.fstat(self._file.fileno()).st_size

    def read(self, spans: Sequence[Span]) -> list[bytes]:
        """See `Bytes.read`."""
        return [self._one(start, stop) for start, stop in spans]

    def _one(self, start: int, stop: int) -> bytes:
        pieces: list[bytes] = []
        while start < stop:
            piece = os.pread(self._file.fileno(), stop - start, start)
            if not piece:
                raise EOFError(f"{self.where} became shorter while it was read")
            pieces.append(piece)
            start += len(piece)
        return b"".join(pieces)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@dataclass(frozen=True)
class LocalFolder:
    """A folder on disk as a `Place`."""

    path: Path
    traffic: Traffic = field(default_factory=Traffic, repr=False, compare=False)
    """Nothing: a disk has no requests."""
    far = False

    @property
    def where(self) -> str:
        """The folder."""
        return str(self.path)

    def names(self) -> list[str]:
        """Files of the folder and the folders in it."""
        found = (file for file in self.path.rglob("*") if file.is_file())
        return sorted(file.relative_to(self.path).as_posix() for file in found)

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return (self.path / name).stat().st_size

    def sha256(self, name: str) -> str:
        """SHA-256, remembered for as long as the file is not touched."""
        return file_sha256(self.path / name)

    def read(self, name: str) -> bytes:
        """The file, whole."""
        return (self.path / name).read_bytes()

    def open(self, name: str) -> Bytes:
        """The file for random access."""
        return LocalFile(self.path / name)

    def fetch(self, names: Collection[str]) -> None:
        """Nothing: they are here."""

    def release(self) -> None:
        """Nothing: they stay."""

    def stop(self) -> None:
        """Nothing is under way."""

    def describe(self) -> dict[str, str]:
        """The folder."""
        return {"folder": str(self.path)}


def content_of(place: Place, name: str) -> str:
    """What names a file's content without reading it, where the place can tell: equal names, equal content."""
    etag: Callable[[str], str] = getattr(place, "etag", place.sha256)
    return etag(name)
