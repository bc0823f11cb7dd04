"""One request: who sent it, what it names, and its body read in pieces."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from analysis360.loopback.access import Access, Caller
from analysis360.loopback.content import Commit, Repository, Source
from analysis360.loopback.names import checked_path, checked_repository
from analysis360.loopback.refusals import RefusedError, bad_request, no_repository, no_revision

__all__ = ["Call", "path_of", "text"]

BODY_BYTES = 64 << 20
LINE_BYTES = 24 << 20
OTHER_NAME = {"127.0.0.1": "localhost", "localhost": "127.0.0.1"}


@dataclass(frozen=True)
class Call:
    """A request to a server, with the checks that every handler begins with."""

    request: Request
    source: Source
    access: Access
    caller: Caller
    page: int
    """Entries of a listing in one answer."""

    @property
    def host(self) -> str:
        """The Host header, with its port."""
        return self.request.headers["host"]

    @property
    def endpoint(self) -> str:
        """How the client addresses this server."""
        return f"http://{self.host}"

    @property
    def other_endpoint(self) -> str | None:
        """The same server by another host name, where it has one."""
        name, _, port = self.host.partition(":")
        return f"http://{OTHER_NAME[name]}{':' if port else ''}{port}" if name in OTHER_NAME else None

    def flag(self, name: str) -> bool:
        """Whether the query says `name=true` or `1`."""
        return self.request.query_params.get(name, "").lower() in ("true", "1")

    def number(self, name: str, default: int) -> int:
        """A number of the query, at least 0. Raises RefusedError (400)."""
        text = self.request.query_params.get(name, str(default))
        if not text.isascii() or not text.isdigit() or len(text) > 12:
            raise bad_request(f"{name}: expected a number, found {text[:40]!r}")
        return int(text)

    def readable(self, kind: str, namespace: str, name: str, *, content: bool = False) -> Repository:
        """The repository, if the caller may see it and, if asked for, read its files. Raises RefusedError."""
        repository = self.source.repository(kind, checked_repository(namespace, name))
        if repository is None:
            raise no_repository(anonymous=self.caller.user is None)
        self.access.read(self.caller, repository, content=content)
        return repository

    def writable(self, kind: str, namespace: str, name: str) -> Repository:
        """The repository, if the caller may write to it. Raises RefusedError."""
        repository = self.readable(kind, namespace, name)
        self.access.write(self.caller, repository.namespace)
        return repository

    def commit(self, repository: Repository, revision: str) -> Commit:
        """What a branch, tag or commit id means now. Raises RefusedError (404)."""
        target = repository.target(revision)
        commit = self.source.commit(repository, target) if target else None
        if commit is None:
            raise no_revision(revision)
        return commit

    async def body(self, limit: int = BODY_BYTES) -> bytes:
        """The request's body. Raises RefusedError (413) beyond `limit` bytes."""
        read = bytearray()
        async for piece in self.request.stream():
            read += piece
            if len(read) > limit:
                raise RefusedError(413, f"Expected at most {limit} bytes")
        return bytes(read)

    async def json(self) -> dict[str, Any]:
        """The request's body, a JSON object. Raises RefusedError (400, 413)."""
        return _object(await self.body())

    async def lines(self) -> AsyncIterator[dict[str, Any]]:
        """The request's body, JSON objects one a line. Raises RefusedError (400, 413)."""
        left = bytearray()
        async for piece in self.request.stream():
            left += piece
            *whole, rest = left.split(b"\n") if b"\n" in piece else [left]
            left = bytearray(rest)
            if len(left) > LINE_BYTES:
                raise RefusedError(
                    413, f"Expected lines of at most {LINE_BYTES} bytes; upload large files as such"
                )
            for line in whole:
                if line.strip():
                    yield _object(bytes(line))
        if left.strip():
            yield _object(bytes(left))


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        raise bad_request("Expected JSON") from None
    if not isinstance(value, dict):
        raise bad_request("Expected a JSON object")
    return value


def text(value: dict[str, Any], key: str) -> str:
    """A string of a JSON object. Raises RefusedError (400)."""
    found = value.get(key)
    if not isinstance(found, str):
        raise bad_request(f"{key}: expected a string")
    return found


def path_of(segments: list[str]) -> str:
    """The path that the rest of an address names. Raises RefusedError (400)."""
    return checked_path("/".join(segments))
