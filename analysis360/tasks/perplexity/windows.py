"""Windows over ids: every target in one of them, with the longest context that the stride leaves."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis360.engines import STOPPED, Request

Ids = NDArray[np.int32]


class Window(NamedTuple):
    """What a model reads at once."""

    ids: Ids
    """[n] the last one is only asked about."""
    first: int
    """The targets are ids[first:], each given all ids before it."""


class Asked(NamedTuple):
    """Consecutive targets of a window."""

    request: Request
    eos: bool
    """Whether they are EOS, one alone, or free of it."""


def windows(ids: Ids, width: int, stride: int) -> list[Window]:
    """Windows of up to `width` ids read, whose targets are ids[1:], each once.

    The first asks about all it can, the following about `stride` targets each. The last reaches back as far as
    the others: where fewer targets are left, they see more.
    """
    found: list[Window] = []
    targets, done = len(ids) - 1, 0
    while done < targets:
        end = min(done + (stride if done else width), targets)
        start = max(end - width, 0)
        found.append(Window(ids[start : end + 1], done + 1 - start))
        done = end
    return found


def requests(window: Window, eos: int | None) -> list[Asked]:
    """The targets of a window in their order, parted where EOS is one of them: together they are read once."""
    ids: tuple[int, ...] = tuple(window.ids.tolist())
    found, start = [], window.first
    ends = np.flatnonzero(window.ids[start:] == (STOPPED if eos is None else eos)) + start
    for place in ends.tolist():
        if start < place:
            found.append(Asked(Request(ids[:start], ids[start:place]), False))
        found.append(Asked(Request(ids[:place], ids[place : place + 1]), True))
        start = place + 1
    if start < len(ids):
        found.append(Asked(Request(ids[:start], ids[start:]), False))
    return found
