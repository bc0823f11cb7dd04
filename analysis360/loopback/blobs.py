"""Content-addressed blobs on disk: written aside, checked, and named by their SHA-256 only then."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path
from types import TracebackType

from analysis360.loopback.refusals import RefusedError

__all__ = ["Blobs", "Incoming", "write_whole"]


def write_whole(path: Path, data: bytes) -> None:
    """Write a small file, or none of it. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with aside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


class Blobs:
    """A folder of files named by their content."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "blobs"
        self._incoming = folder / "incoming"
        self._incoming.mkdir(parents=True, exist_ok=True)
        for left in self._incoming.iterdir():  # of a server that was killed
            left.unlink()

    def path(self, sha256: str) -> Path:
        """Where the content of that SHA-256 (64 hex digits) is or would be."""
        return self._folder / sha256[:2] / sha256

    def size(self, sha256: str) -> int | None:
        """Bytes of the content, or None where it is not here."""
        try:
            return self.path(sha256).stat().st_size
        except OSError:
            return None

    def put(self, content: bytes) -> str:
        """Keep a small content; returns its SHA-256."""
        sha256 = hashlib.sha256(content).hexdigest()
        if self.size(sha256) is None:
            write_whole(self.path(sha256), content)
        return sha256

    def receive(self, sha256: str, size: int) -> Incoming:
        """Begin to take in content of a declared SHA-256 and size (bytes)."""
        return Incoming(self._incoming / secrets.token_hex(8), self.path(sha256), sha256, size)


class Incoming:
    """Content on its way in, piece by piece; left without `finish`, nothing of it stays."""

    def __init__(self, aside: Path, target: Path, sha256: str, size: int) -> None:
        self._aside, self._target = aside, target
        self._sha256, self._size = sha256, size
        self._digest = hashlib.sha256()
        self._file = aside.open("xb", buffering=0)
        self._received = 0

    def write(self, piece: bytes | bytearray) -> None:
        """Take the next piece. Raises RefusedError (413) as soon as there is more than was declared."""
        self._received += len(piece)
        if self._received > self._size:
            raise RefusedError(413, f"More than the declared {self._size} bytes were sent")
        self._digest.update(piece)
        left = memoryview(piece)
        while left:
            left = left[self._file.write(left) or 0 :]

    def finish(self) -> None:
        """Name the content. Raises RefusedError (400) unless size and SHA-256 are those declared."""
        if self._received != self._size:
            raise RefusedError(400, f"{self._received} bytes were sent, {self._size} declared")
        if self._digest.hexdigest() != self._sha256:
            raise RefusedError(
                400, f"SHA-256 of what was sent is {self._digest.hexdigest()}, not {self._sha256}"
            )
        os.fsync(self._file.fileno())
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self._aside.replace(self._target)

    def __enter__(self) -> Incoming:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._aside.unlink(missing_ok=True)
