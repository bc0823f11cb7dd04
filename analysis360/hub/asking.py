"""Asking a server that may be busy, slow or wrong: patience, and one line where it runs out."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

import httpx2
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from analysis360.errors import HubError, MissingError, UnreachableError
from analysis360.places import Traffic

BUSY = (408, 429, 500, 502, 503, 504)
FIRST_WAIT, LONGEST_WAIT = 0.25, 30.0
NO_CONNECTION_WAIT = 8.0
"""Seconds that a server which takes no connections is tried: a laptop without a network should hear soon."""
SECRET = re.compile(
    r"hf_[A-Za-z0-9]{4,}|([?&](?:X-Amz-[A-Za-z]+|Signature|Policy|token|Key-Pair-Id)=)[^&\s]+"
)
Answer = TypeVar("Answer")


class AgainError(Exception):
    """An answer that is not what was asked for; the next one may be."""


def patiently(
    what: str,
    ask: Callable[[], Answer],
    *,
    patience: float,
    traffic: Traffic,
    progress: Callable[[], int] = int,
) -> Answer:
    """The answer to a question, asked again while the server is busy, failing or silent.

    A rate limit says how long to wait; otherwise waits double. Patience begins anew when `progress`,
    the bytes that have arrived, has grown. Raises HubError, one line, when `patience` seconds are not
    enough, and at once for what waiting does not mend.
    """
    began, wait, had = time.monotonic(), FIRST_WAIT, progress()
    while True:
        try:
            return ask()
        except (HfHubHTTPError, httpx2.HTTPError, AgainError, OfflineModeIsEnabled, RuntimeError) as error:
            # RuntimeError: another thread had the shared client closed after a failed connection.
            asked = retry_after(error)
            if progress() > had:
                began, wait, had = time.monotonic(), FIRST_WAIT, progress()
            pause = max(wait, asked or 0.0)
            limit = min(patience, NO_CONNECTION_WAIT) if isinstance(error, httpx2.ConnectError) else patience
            if not may_pass(error) or time.monotonic() - began + pause > limit:
                raise explained(what, error, pause, patience) from None
        traffic.add(retries=1)
        time.sleep(pause)
        wait = min(2 * wait, LONGEST_WAIT)


def may_pass(error: Exception) -> bool:
    """Whether asking again may help."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in BUSY
    if isinstance(error, RuntimeError):
        return "closed" in str(error)
    return isinstance(error, AgainError | httpx2.TransportError) and not isinstance(
        error, httpx2.UnsupportedProtocol
    )


def retry_after(error: Exception) -> float | None:
    """Seconds that the server asks to wait; None when it does not say."""
    response = getattr(error, "response", None)
    value = response.headers.get("Retry-After") if response is not None else None
    return float(value) if value is not None and re.fullmatch(r"\d+(\.\d+)?", value) else None


def explained(what: str, error: Exception, pause: float = 0.0, patience: float = 0.0) -> HubError:
    """The error as one line that says what to do; no token and no signed address is in it."""
    response: Any = getattr(error, "response", None)
    status = response.status_code if response is not None else None
    if isinstance(error, OfflineModeIsEnabled):
        return UnreachableError(
            f"{what}: offline, and it is not in the cache; unset HF_HUB_OFFLINE to fetch it"
        )
    if isinstance(error, GatedRepoError):
        return MissingError(
            f"{what}: the repository is gated: accept its terms on its page, then give a token in HF_TOKEN"
        )
    if isinstance(error, RepositoryNotFoundError):
        hint = "check the name; a private one needs a token that may read it in HF_TOKEN"
        return MissingError(f"{what}: no such repository, or not for this token ({status}); {hint}")
    if isinstance(error, RevisionNotFoundError | RemoteEntryNotFoundError):
        return MissingError(f"{what}: not found ({status})")
    if status in (401, 403):
        return MissingError(f"{what}: refused ({status}); give a token that may read it in HF_TOKEN")
    if status == 429:
        return HubError(
            f"{what}: rate limited for {pause:.0f} s, longer than the patience of {patience:.0f} s; "
            "run the same command later, it goes on where it was"
        )
    if isinstance(error, httpx2.ConnectError):
        return UnreachableError(f"{what}: no connection: {one_line(error)}; is there a network?")
    after = f" after {patience:.0f} s of trying" if may_pass(error) else ""
    return HubError(f"{what}: {one_line(error)}{after}; run the same command later, it goes on where it was")


def one_line(error: Exception) -> str:
    """The first line of a message, without secrets."""
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    text = lines[0][:200] if lines else type(error).__name__
    return SECRET.sub(lambda match: f"{match[1] or ''}...", text)
