"""What vLLM is asked so that every likelihood is known: the least it must read, in an order that shares prefixes.

A sequence is read without its last id, whose probability is that of being generated next: so requests may fill
the window, and continuations of one id (the letters of a choice) cost one reading of their context in all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from analysis360.engines import Likelihood, Request

LAST_IDS = 128
"""Ids whose probability of coming next vLLM tells of one request, at most."""
CALL_TOKENS = 2**18
"""Ids in one call of vLLM, but for its last request: it keeps some 300 bytes of each until the call ends."""


class Query(NamedTuple):
    """One request of vLLM's."""

    ids: tuple[int, ...]
    start: int
    """Positions from here to the end are scored; none if it is the length of `ids`."""
    last: tuple[int, ...]
    """Ids whose probability of coming next is asked for."""


class Answer(NamedTuple):
    """What a query was answered."""

    given: tuple[tuple[float, bool], ...]
    """Of each scored position: log-probability of its id, and whether that is the argmax."""
    last: dict[int, float]
    """Log-probability of each id asked for."""
    best: int
    """The argmax of what comes next."""


def plan(requests: Sequence[Request], block: int | None) -> list[Query]:
    """The queries that answer all requests, sorted so that what begins alike is together, the shorter first.

    Where vLLM shares prefixes in blocks of `block` ids, a context of several of them is read once before what
    continues it: as its positions are not scored then, that also spares the model's head.
    """
    starts: dict[tuple[int, ...], int] = {}
    lasts: dict[tuple[int, ...], set[int]] = {}
    contexts: dict[tuple[int, ...], tuple[int, ...]] = {}
    for context, continuation in requests:
        ids = context + continuation[:-1]
        starts[ids] = min(starts.get(ids, len(ids)), len(context))
        lasts.setdefault(ids, set()).add(continuation[-1])
        if len(continuation) > 1:
            contexts[ids] = context
    queries = [query for ids, start in starts.items() for query in _cut(ids, start, sorted(lasts[ids]))]
    if block is not None:
        for context, continued in Counter(contexts.values()).items():
            if continued > 1 and len(context) > block and context not in starts:
                # Without its last id, of which what continues it must see the model's answer.
                queries.append(Query(context[:-1], len(context) - 1, ()))
    return sorted(
        queries, key=lambda query: np.array(query.ids, ">u4").tobytes()
    )  # these compare as the ids do


def _cut(ids: tuple[int, ...], start: int, last: Sequence[int]) -> Iterator[Query]:
    """As many queries as the last ids need; the first scores the positions."""
    for i in range(0, len(last), LAST_IDS):
        yield Query(ids, len(ids) if i else start, tuple(last[i : i + LAST_IDS]))


def pieces(queries: Sequence[Query]) -> Iterator[list[Query]]:
    """Queries in calls of about CALL_TOKENS ids."""
    piece: list[Query] = []
    tokens = 0
    for query in queries:
        piece.append(query)
        tokens += len(query.ids)
        if tokens >= CALL_TOKENS:
            yield piece
            piece, tokens = [], 0
    if piece:
        yield piece


@dataclass
class Answers:
    """Answers to queries, put together."""

    _given: dict[tuple[int, ...], tuple[tuple[float, bool], ...]] = field(default_factory=dict)
    _last: dict[tuple[int, ...], dict[int, float]] = field(default_factory=dict)
    _best: dict[tuple[int, ...], int] = field(default_factory=dict)

    def add(self, query: Query, answer: Answer) -> None:
        """Keep what a query was answered."""
        if not query.last:
            return
        if len(answer.given) > len(self._given.get(query.ids, ())):
            self._given[query.ids] = answer.given
        self._last.setdefault(query.ids, {}).update(answer.last)
        self._best[query.ids] = answer.best

    def likelihood(self, request: Request) -> Likelihood:
        """The answer to a request that was planned for, once all queries are answered."""
        ids, last = request.context + request.continuation[:-1], request.continuation[-1]
        before = len(request.continuation) - 1
        given = self._given[ids][-before:] if before else ()
        logprob = sum(one for one, _ in given) + self._last[ids][last]
        return Likelihood(logprob, all(hit for _, hit in given) and self._best[ids] == last)
