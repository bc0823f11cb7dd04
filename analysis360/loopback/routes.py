"""From an address to its handler."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from analysis360.loopback import reading, writing
from analysis360.loopback.access import Access
from analysis360.loopback.answers import json_answer
from analysis360.loopback.call import Call
from analysis360.loopback.cards import checked_card
from analysis360.loopback.faults import Faults
from analysis360.loopback.links import Links
from analysis360.loopback.mount import Mount
from analysis360.loopback.names import KINDS
from analysis360.loopback.refusals import RefusedError
from analysis360.loopback.store import Store

__all__ = ["Server", "answer"]

Handler = Callable[..., Awaitable[Response]]
# (method, verb of the address) -> handler and how many parts follow the verb; None: one or more.
READING: dict[tuple[str, str], tuple[Handler, int | None]] = {
    ("GET", "refs"): (reading.refs, 0),
    ("GET", "revision"): (reading.info, 1),
    ("GET", "tree"): (reading.tree, None),
    ("POST", "paths-info"): (reading.paths_info, 1),
    ("GET", "commits"): (reading.commits, 1),
    ("POST", "preupload"): (writing.preupload, 1),
}
WRITING: dict[tuple[str, str], tuple[Handler, int]] = {
    ("POST", "branch"): (writing.branch, 1),
    ("DELETE", "branch"): (writing.branch, 1),
    ("POST", "tag"): (writing.tag, 1),
    ("DELETE", "tag"): (writing.tag, 1),
    ("POST", "commit"): (writing.commit, 1),
    ("PUT", "settings"): (writing.settings, 0),
}


@dataclass(frozen=True)
class Server:
    """What every request shares."""

    source: Store | Mount
    access: Access
    links: Links
    faults: Faults
    page: int
    """Entries of a listing in one answer."""
    limit: int
    """Bytes that one uploaded file may have."""

    @property
    def store(self) -> Store:
        """The store, to write to. Raises RefusedError (403) where a folder is mounted."""
        if isinstance(self.source, Store):
            return self.source
        raise RefusedError(403, "This server shows a folder and takes nothing in")


async def answer(server: Server, request: Request, parts: list[str]) -> ASGIApp:
    """The answer to a request for an address, given in parts. Raises RefusedError."""
    method = "GET" if request.method == "HEAD" else request.method
    if parts[0] in ("cdn", "upload") and len(parts) == 2:
        return await _linked(server, request, method, *parts)
    caller = server.access.caller(request.headers.get("authorization"))
    call = Call(request, server.source, server.access, caller, server.page)
    if parts[0] == "api":
        return await _api(server, call, method, parts[1:])
    kind, rest = ("datasets", parts[1:]) if parts[0] == "datasets" else ("models", parts)
    if method == "GET" and len(rest) > 4 and rest[2] == "resolve":
        seconds = server.faults.link_seconds
        return await reading.resolve(call, server.links, seconds, kind, rest[0], rest[1], rest[3], *rest[4:])
    if method == "POST" and len(rest) == 6 and rest[2:5] == ["info", "lfs", "objects"]:
        namespace, name = rest[0], rest[1].removesuffix(".git")
        if rest[5] == "batch":
            return await writing.batch(call, server.store, server.links, server.limit, kind, namespace, name)
        if rest[5] == "verify":
            return await writing.verify(call, server.store, kind, namespace, name)
    raise _nothing()


async def _linked(server: Server, request: Request, method: str, purpose: str, sha256: str) -> ASGIApp:
    """Signed links: they carry their permission, whoever follows them."""
    stranger = server.access.caller(None)
    call = Call(request, server.source, server.access, stranger, server.page)
    if (purpose, method) == ("cdn", "GET"):
        return await reading.deliver(call, server.links, sha256)
    if (purpose, method) == ("upload", "PUT"):
        return await writing.upload(call, server.store, server.links, sha256)
    raise _nothing()


async def _api(server: Server, call: Call, method: str, parts: list[str]) -> Response:
    if (method, parts) == ("GET", ["whoami-v2"]):
        return await reading.whoami(call)
    if (method, parts) == ("POST", ["repos", "create"]):
        return await writing.create(call, server.store)
    if (method, parts) == ("POST", ["validate-yaml"]):
        return json_answer(*checked_card(await call.json()))
    if len(parts) < 3 or parts[0] not in KINDS:
        raise _nothing()
    repository, verb, rest = parts[:3], parts[3:4], parts[4:]
    if (method, verb) == ("GET", []):
        return await reading.info(call, *repository)
    if (method, parts[3:]) == ("POST", ["user-access-request", "grant"]):
        return await writing.grant(call, server.store, *repository)
    found: Any = READING.get((method, *verb)) or WRITING.get((method, *verb))  # type: ignore[arg-type]
    if found is None or (len(rest) != found[1] if found[1] is not None else not rest):
        raise _nothing()
    writes = (method, *verb) in WRITING
    return await found[0](*([call, server.store] if writes else [call]), *repository, *rest)  # type: ignore[no-any-return]


def _nothing() -> RefusedError:
    return RefusedError(404, "Nothing is at this address")
