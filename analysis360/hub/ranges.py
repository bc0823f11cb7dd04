"""One file of a pinned commit, read by ranges: found once, several requests at a time, every answer checked."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import httpx2
from huggingface_hub.errors import HfHubHTTPError

from analysis360.hub.asking import AgainError
from analysis360.hub.client import Address, Hub, Kind
from analysis360.hub.threads import in_threads
from analysis360.places import Span

EXPIRED = (400, 401, 403, 404, 410)
"""Answers of a server of files whose address has expired: the Hub is asked for a new one."""
REFUSALS = 3
"""New addresses that may be refused in a row before the refusal is believed."""
PIECE = 8 << 20
"""Bytes of one request at most; a longer span is read in pieces, several at a time."""


class Source:
    """Where the bytes of a file come from: the address is asked for once, and anew when it expires."""

    def __init__(self, hub: Hub, repository: str, kind: Kind, commit: str, name: str, size: int) -> None:
        self.hub, self._of, self.size = hub, (repository, kind, commit, name), size
        self.where = f"{repository}@{commit[:8]}/{name}"
        self._address: Address | None = None
        self._refused = 0
        self._lock = threading.Lock()

    @contextmanager
    def get(self, start: int, stop: int) -> Iterator[httpx2.Response]:
        """The open answer for bytes [start, stop); see `Hub.get`."""
        address = self.address()
        try:
            with self.hub.get(address, start, stop) as answer:
                self._refused = 0
                yield answer
        except HfHubHTTPError as error:
            status = error.response.status_code
            if status in EXPIRED and self._forget(address):
                raise AgainError(f"its address expired ({status})") from None
            raise

    def address(self) -> Address:
        """Where the bytes are now."""
        with self._lock:
            if self._address is None:
                found = self.hub.resolve(*self._of)
                if found.size != self.size:
                    raise AgainError(f"expected {self.size} bytes, the Hub says {found.size}")
                self._address = found
            return self._address

    def _forget(self, address: Address) -> bool:
        """Drop an address that was refused; False when new ones are refused again and again."""
        with self._lock:
            if self._address is address:
                self._address = None
                self._refused += 1
            return self._refused <= REFUSALS


class HubFile:
    """A file on the Hub as `Bytes`."""

    def __init__(self, source: Source) -> None:
        self._source, self.where, self.size = source, source.where, source.size

    @property
    def guarded(self) -> bool:
        """Whether the connection checks the bytes on their way (TLS)."""
        source = self._source
        return source.hub.patiently(self.where, source.address).url.startswith("https:")

    def read(self, spans: Sequence[Span]) -> list[bytes]:
        """See `Bytes.read`. Raises HubError."""
        pieces = [
            (i, a, min(a + PIECE, stop))
            for i, (start, stop) in enumerate(spans)
            for a in range(start, stop, PIECE)
        ]
        hub = self._source.hub
        bodies = in_threads(lambda piece: self._one(*piece[1:]), pieces, hub.options.connections)
        joined: list[list[bytes]] = [[] for _ in spans]
        for (i, _, _), body in zip(pieces, bodies, strict=True):
            joined[i].append(body)
        return [b"".join(parts) for parts in joined]

    def close(self) -> None:
        """Nothing is open between reads."""

    def _one(self, start: int, stop: int) -> bytes:
        return self._source.hub.patiently(self.where, lambda: self._ask(start, stop))

    def _ask(self, start: int, stop: int) -> bytes:
        with self._source.get(start, stop) as answer:
            body = answer.read()
        self._source.hub.traffic.add(received=len(body))
        if len(body) != stop - start:
            raise AgainError(f"{stop - start} bytes were asked for, {len(body)} came back")
        return body
