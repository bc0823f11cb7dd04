"""The wire: everything a request sends and receives passes here, is counted, paced and damaged as told."""

from __future__ import annotations

import asyncio

from starlette.types import Message, Receive, Scope, Send

from analysis360.loopback.counts import Counts, Seen, kind_of
from analysis360.loopback.faults import Fault, Faults

__all__ = ["ConnectionCutError", "Wire"]


class ConnectionCutError(Exception):
    """The answer ends here on purpose; the server closes the connection when it sees it incomplete."""


class Wire:
    """One request's way in and out."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, faults: Faults, counts: Counts) -> None:
        raw = scope.get("raw_path") or scope["path"].encode()
        query = scope["query_string"].decode("latin-1")
        self.path: str = raw.decode("latin-1")
        self._scope, self._receive, self._send = scope, receive, send
        self._faults, self._counts = faults, counts
        self.fault: Fault | None = faults.draw(f"{scope['method']} {self.path}{'?' if query else ''}{query}")
        self._head, self._counted = scope["method"] == "HEAD", False
        self._status = self._sent = self._received = self._length = 0

    async def receive(self) -> Message:
        """The next piece of the request's body."""
        message = await self._receive()
        self._received += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        """Pass a piece of the answer on. Raises ConnectionCutError where a fault ends it early."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._length = int(dict(message["headers"]).get(b"content-length", 0))
            await self._send(message)
            return
        body, cut = self._damaged(message.get("body", b""))
        if body:
            await self._faults.pace(len(body))
        self._sent += 0 if self._head else len(body)
        more = cut or message.get("more_body", False)
        if not more:  # before the client can see the end, and look at the counts
            self.count()
        await self._send({**message, "body": body, "more_body": more})
        if cut:
            raise ConnectionCutError

    async def suffer(self) -> None:
        """What happens before there is an answer: latency, a callback, a stall."""
        if self._faults.latency:
            await asyncio.sleep(self._faults.latency)
        if self.fault is not None and self.fault.call is not None:
            await asyncio.to_thread(self.fault.call)
        if self.fault is not None and self.fault.stall:
            await asyncio.sleep(self.fault.stall)

    def count(self) -> None:
        """Note the request, once, now that it is over."""
        if self._counted:
            return
        self._counted = True
        asked = dict(self._scope["headers"]).get(b"range")
        self._counts.add(
            Seen(
                kind=kind_of(self.path),
                method=self._scope["method"],
                path=self.path,
                range=None if asked is None else asked.decode("latin-1"),
                status=self._status,
                sent=self._sent,
                received=self._received,
            )
        )

    def _damaged(self, body: bytes) -> tuple[bytes, bool]:
        """The body with the fault applied, and whether the connection ends behind it."""
        fault, start = self.fault, self._sent
        if fault is None or self._head:
            return body, False
        if fault.flip is not None and self._length:
            at = fault.flip % self._length - start
            if 0 <= at < len(body):
                body = body[:at] + bytes([body[at] ^ 0xFF]) + body[at + 1 :]
        if fault.truncate is not None and start + len(body) > fault.truncate:
            return body[: fault.truncate - start], True
        return body, False
