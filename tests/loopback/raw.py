"""Requests as they come from those who do not keep to the rules: bytes over a socket."""

from __future__ import annotations

import socket


def raw_request(port: int, data: bytes, *, host: str = "127.0.0.1") -> tuple[int, bytes]:
    """Send bytes, read until the server closes or is silent; the status (0 for none) and all that came back."""
    with socket.create_connection((host, port), timeout=5) as connection:
        connection.sendall(data)
        answer = b""
        try:
            while piece := connection.recv(65536):
                answer += piece
        except (TimeoutError, ConnectionResetError):
            pass
    status = answer.split(b" ", 2)[1:2]
    return int(status[0]) if status and status[0].isdigit() else 0, answer


def get_path(
    port: int, path: str, *, host: str = "127.0.0.1", method: str = "GET", body: bytes = b""
) -> tuple[int, bytes]:
    """A request for a path that no library has tidied up."""
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    return raw_request(port, head.encode("latin-1") + body)
