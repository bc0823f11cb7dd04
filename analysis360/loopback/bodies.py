"""Bodies: files and ranges of them, streamed with flat memory."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.types import Receive, Scope, Send

__all__ = ["FileAnswer", "UnsatisfiableError", "parse_range", "pieces"]

PIECE = 1 << 20
SMALL = 1 << 18
"""Bytes that are read without a thread: quicker for what is in the page cache."""
RANGE = re.compile(r"bytes=\s*([0-9]*)\s*-\s*([0-9]*)\s*", re.ASCII | re.IGNORECASE)


class UnsatisfiableError(ValueError):
    """A range that begins behind the end of its file: 416."""


def parse_range(header: str | None, size: int) -> range | None:
    """The bytes of a file of `size` bytes that a Range header asks for; None for the whole file.

    A header that is malformed, reversed, or asks for several ranges is not obeyed (None), as HTTP allows.
    Raises UnsatisfiableError.
    """
    match = RANGE.fullmatch(header.strip()) if header and len(header) < 100 else None
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if first == "":
        if int(last) == 0 or size == 0:
            raise UnsatisfiableError(header)
        return range(max(0, size - int(last)), size)
    if last and int(last) < int(first):
        return None
    if int(first) >= size:
        raise UnsatisfiableError(header)
    return range(int(first), min(size, int(last) + 1) if last else size)


async def pieces(path: Path, part: range) -> AsyncIterator[bytes]:
    """The bytes of a part of a file, at most 1 MiB at a time. Raises OSError."""
    file = os.open(path, os.O_RDONLY)
    try:
        at = part.start
        while at < part.stop:
            size = min(PIECE, part.stop - at)
            piece = (
                os.pread(file, size, at)
                if size <= SMALL
                else await asyncio.to_thread(os.pread, file, size, at)
            )
            if not piece:
                raise OSError(f"{path} ends at byte {at}, before {part.stop}")
            yield piece
            at += len(piece)
    finally:
        os.close(file)


class FileAnswer:
    """An answer whose body is a file or the part of it that a Range header asks for; HEAD gets its headers."""

    def __init__(self, path: Path, size: int, headers: dict[str, str], asked: str | None) -> None:
        self._path = path
        self._headers = headers | {"Accept-Ranges": "bytes"}
        self._status = 200
        try:
            part = parse_range(asked, size)
        except UnsatisfiableError:
            self._status, part = 416, range(0)
            self._headers["Content-Range"] = f"bytes */{size}"
        if part is not None and self._status == 200:
            self._status = 206
            self._headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
        self._part = range(size) if part is None else part

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it. Raises OSError where the file cannot be read."""
        headers = self._headers | {"Content-Length": str(len(self._part))}
        raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": self._status, "headers": raw})
        if scope["method"] != "HEAD":
            left = len(self._part)
            async for piece in pieces(self._path, self._part):
                left -= len(piece)
                await send({"type": "http.response.body", "body": piece, "more_body": left > 0})
        if scope["method"] == "HEAD" or not self._part:
            await send({"type": "http.response.body", "body": b""})
