"""Faults on purpose: what networks and servers do to clients, by script or by seeded chance."""

from __future__ import annotations

import asyncio
import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Fault", "Faults"]


@dataclass(frozen=True)
class Fault:
    """What happens to one request. Several parts may be given; they happen in the order listed here."""

    call: Callable[[], object] | None = None
    """Called before anything else, in a thread: to move a branch between two requests, for example."""
    stall: float = 0.0
    """Seconds without an answer."""
    status: int | None = None
    """Answer with this status and nothing else; 429, 500 and 503 are what a Hub sends on a bad day."""
    retry_after: int | None = None
    """Seconds, in the Retry-After header of that status."""
    expired: bool = False
    """403 as a content delivery network gives for a link that is no longer valid."""
    flip: int | None = None
    """Position in the body of a byte that arrives changed; -1 is the last."""
    truncate: int | None = None
    """Bytes of the body after which the connection is closed; Content-Length promises them all."""


@dataclass
class _Rule:
    match: re.Pattern[str]
    fault: Fault
    times: int | None
    probability: float


class Faults:
    """Faults and limits of a server. May be changed while it runs, from any thread.

    `latency` is seconds added to each request, `bandwidth` bytes a second for all bodies together,
    `link_seconds` how long a signed link is valid.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        latency: float = 0.0,
        bandwidth: float | None = None,
        link_seconds: float = 3600.0,
    ) -> None:
        self.latency = latency
        self.bandwidth = bandwidth
        self.link_seconds = link_seconds
        self._random = random.Random(seed)
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()
        self._free_at = 0.0

    def next(self, match: str, fault: Fault, times: int = 1) -> None:
        """The next `times` requests whose `METHOD /path?query` the regular expression is found in have the fault."""
        with self._lock:
            self._rules.append(_Rule(re.compile(match), fault, times, 1.0))

    def often(self, match: str, fault: Fault, probability: float) -> None:
        """Each request the regular expression is found in has the fault with this probability."""
        with self._lock:
            self._rules.append(_Rule(re.compile(match), fault, None, probability))

    def clear(self) -> None:
        """No more faults; latency, bandwidth and the age of links stay."""
        with self._lock:
            self._rules.clear()

    def draw(self, request: str) -> Fault | None:
        """The fault of a request, given as `METHOD /path?query`: that of the first rule that applies."""
        if not self._rules:
            return None
        with self._lock:
            for rule in self._rules:
                if not rule.match.search(request):
                    continue
                if rule.times is None:
                    if self._random.random() < rule.probability:
                        return rule.fault
                elif rule.times > 0:
                    rule.times -= 1
                    return rule.fault
        return None

    async def pace(self, size: int) -> None:
        """Wait until `size` bytes of a body fit into the bandwidth."""
        if not self.bandwidth:
            return
        now = time.monotonic()
        start = max(self._free_at, now)
        self._free_at = start + size / self.bandwidth
        if self._free_at > now:
            await asyncio.sleep(self._free_at - now)
