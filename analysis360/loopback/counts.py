"""What a server was asked for, so that a test can say how many requests a thing may cost."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field

__all__ = ["Counts", "Seen", "kind_of"]

KEPT = 100_000


@dataclass(frozen=True)
class Seen:
    """One request and how it was answered."""

    kind: str
    """`api`, `resolve`, `cdn` or `upload`."""
    method: str
    path: str
    """Path as it was sent, without the query (a link's signature is nobody's business)."""
    range: str | None
    """The Range header."""
    status: int
    """0 when the client went away before an answer."""
    sent: int
    """Bytes of the answer's body."""
    received: int
    """Bytes of the request's body."""


@dataclass
class Counts:
    """Requests and bytes by kind since the start or the last `clear`."""

    requests: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    """Bytes of bodies: received for `upload`, sent for the rest."""
    seen: list[Seen] = field(default_factory=list)
    """The first 100,000 requests, in the order they were finished."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(self, seen: Seen) -> None:
        """Count a request that is finished."""
        with self._lock:
            self.requests[seen.kind] += 1
            self.bytes[seen.kind] += seen.received if seen.kind == "upload" else seen.sent
            if len(self.seen) < KEPT:
                self.seen.append(seen)

    def clear(self) -> None:
        """Start again at nothing."""
        with self._lock:
            self.requests.clear()
            self.bytes.clear()
            self.seen.clear()


def kind_of(path: str) -> str:
    """The kind of request a path is: `cdn`, `upload`, `resolve` or `api`."""
    if path.startswith("/cdn/"):
        return "cdn"
    if path.startswith("/upload/"):
        return "upload"
    return "resolve" if "/resolve/" in path and not path.startswith("/api/") else "api"
