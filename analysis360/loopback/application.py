"""The ASGI application: one request from its first check to its last byte."""

from __future__ import annotations

import ipaddress
import re
import socket
from urllib.parse import unquote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from analysis360.loopback.access import Access
from analysis360.loopback.answers import refused
from analysis360.loopback.counts import Counts
from analysis360.loopback.faults import Fault, Faults
from analysis360.loopback.links import Links
from analysis360.loopback.mount import Mount
from analysis360.loopback.reading import EXPIRED
from analysis360.loopback.refusals import RefusedError, bad_request
from analysis360.loopback.routes import Server, answer
from analysis360.loopback.store import Store
from analysis360.loopback.wire import ConnectionCutError, Wire

__all__ = ["Application", "allowed_host"]

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
SAME = ("none", "same-origin")
"""What a browser says of a request that no other site made."""
ANYWHERE = frozenset({"0.0.0.0", "::"})
HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")


def allowed_host(header: str, bound: str) -> bool:
    """Whether a request with this Host header was meant for a server bound to `bound`.

    A page of another site can point a name of its own at this machine, but cannot forge the header. A server
    bound to every address takes any literal address, and the machine's own name.
    """
    match = HOST.fullmatch(header)
    if match is None:
        return False
    name = match[1].lower()
    if name in LOOPBACK or name.strip("[]") == bound.lower():
        return True
    if bound not in ANYWHERE:
        return False
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return name == socket.gethostname().lower()
    return True


class Application:
    """Serves a store or a mounted series. Nothing of a request is logged."""

    def __init__(
        self, source: Store | Mount, *, host: str, faults: Faults, access: Access, page: int, limit: int
    ) -> None:
        self.counts = Counts()
        self.faults = faults
        self._host = host
        self._server = Server(source, access, Links(), faults, page, limit)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        wire = Wire(scope, receive, send, self.faults, self.counts)
        try:
            await wire.suffer()
            given = await self._given(scope, wire)
            await given(scope, wire.receive, wire.send)
        except (ConnectionCutError, ClientDisconnect):
            pass
        finally:
            wire.count()

    async def _given(self, scope: Scope, wire: Wire) -> ASGIApp:
        request = Request(scope, wire.receive)
        try:
            if "origin" in request.headers or request.headers.get("sec-fetch-site", "none") not in SAME:
                raise bad_request("pages of other sites may not use this server")
            if not allowed_host(request.headers.get("host", ""), self._host):
                raise RefusedError(403, "This server is not known by that name")
            if wire.fault is not None and wire.fault.status is not None:
                return _failed(wire.fault)
            if wire.fault is not None and wire.fault.expired:
                return Response(EXPIRED, 403, media_type="application/xml")
            return await answer(self._server, request, _segments(wire.path))
        except RefusedError as refusal:
            return refused(refusal)


def _failed(fault: Fault) -> Response:
    headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
    return Response("Fault", fault.status or 500, headers)


def _segments(path: str) -> list[str]:
    """The parts of a path, decoded once and after it was taken apart. Raises RefusedError (400)."""
    try:
        return [unquote(part, errors="strict") for part in path.split("/")[1:]]
    except UnicodeDecodeError:
        raise bad_request("The address is not UTF-8") from None
