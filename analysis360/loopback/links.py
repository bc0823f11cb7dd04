"""Signed links: to download from the content delivery network, and to upload a large file."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from urllib.parse import urlencode

__all__ = ["Links"]


class Links:
    """Makes and checks links that are valid for one file, one purpose and a time; the key is never stored."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def make(self, purpose: str, sha256: str, seconds: float, size: int) -> str:
        """Path and query of a link, `/purpose/sha256?...`, valid for `seconds` from now."""
        expires = f"{time.time() + seconds:.3f}"
        signature = self._sign(purpose, sha256, expires, str(size))
        return f"/{purpose}/{sha256}?{urlencode({'size': size, 'expires': expires, 'signature': signature})}"

    def check(self, purpose: str, sha256: str, query: dict[str, str]) -> int | None:
        """The size (bytes) a link was made for, or None when it is forged or no longer valid."""
        size, expires = query.get("size", ""), query.get("expires", "")
        expected = self._sign(purpose, sha256, expires, size)
        if not hmac.compare_digest(expected.encode(), query.get("signature", "").encode()):
            return None
        return int(size) if time.time() < float(expires) else None

    def _sign(self, *parts: str) -> str:
        return hmac.new(self._key, "\n".join(parts).encode(), hashlib.sha256).hexdigest()
