"""Prefix trees: what requests share is read once. From requests to the passes of a model that answer them.

The choices of a question share its context, the questions of a subject the examples before them. All sequences
together are a tree; a pass takes a stretch of it that later passes go on from, or as many whole branches as its
budget allows, side by side, each token seeing those before it on its own branch and no others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from analysis360.engines import Request

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Pass:
    """Ids that go through a model together, after the first `held` of their common path, which it has seen."""

    held: int
    ids: Ints
    """[n]"""
    depth: Ints
    """[n] position of each in its own sequence."""
    until: Ints
    """[n] place in this pass after the last token that sees it: token i sees j where j <= i < until[j]."""
    read: Ints
    """[m] places whose next token is asked about."""
    target: Ints
    """[m] the token."""
    request: Ints
    """[m] whose it is."""

    @property
    def straight(self) -> bool:
        """Whether each token sees all before it."""
        return bool((self.until == len(self.ids)).all())


@dataclass
class Node:
    """A stretch without a branch, ids [start, end) of a sequence, and what follows it."""

    sequence: Ints
    start: int
    end: int
    parent: Node | None = None
    children: list[Node] = field(default_factory=list)
    reads: list[tuple[int, int, int]] = field(default_factory=list)
    """(request, first, last + 1) of the positions that a request reads here."""
    size: int = 0
    """Ids of it and of all that follows."""


def passes(requests: Sequence[Request], budget: int) -> Iterator[Pass]:
    """The passes that answer all requests, of about `budget` ids each, in an order in which what is held is there.

    A model keeps what it has seen of a path; before each pass that is cut to the first `held` ids.
    """
    full = [np.array(one.context + one.continuation, np.int64) for one in requests]
    waiting = [_tree(requests, full)]
    while waiting:
        node = waiting.pop()
        for start in range(node.start, node.end, budget):
            piece = Node(node.sequence, start, min(start + budget, node.end), reads=node.reads)
            yield _pass(start, [piece], full)
        together: list[Node] = []
        for child in sorted(node.children, key=lambda child: child.size):
            if child.size > budget:
                waiting.append(child)
                continue
            if sum(one.size for one in together) + child.size > budget:
                yield _pass(node.end, together, full)
                together = []
            together.append(child)
        if together:
            yield _pass(node.end, together, full)


def distinct_ids(requests: Sequence[Request]) -> int:
    """Ids that are left to read when what sequences have in common is read once."""
    return _tree(requests, [np.array(one.context + one.continuation, np.int64) for one in requests]).size


def _tree(requests: Sequence[Request], full: Sequence[Ints]) -> Node:
    """The tree of all sequences, each without its last id, which is only ever asked about."""
    keys = [ids[:-1].astype(">u4").tobytes() for ids in full]  # these compare as the ids do
    root = Node(np.empty(0, np.int64), 0, 0)
    top, before = root, np.empty(0, np.int64)
    for i in sorted(range(len(full)), key=keys.__getitem__):
        ids = full[i][:-1]
        shared = _shared(before, ids)
        while top.parent is not None and top.start >= shared:
            top = top.parent
        if top.end > shared:
            top = _split(top, shared)
        if len(ids) > shared:
            top.children.append(Node(ids, shared, len(ids), top))
            top = top.children[-1]
        _note_reads(top, i, len(requests[i].context) - 1, len(ids))
        before = ids
    _measure(root)
    return root


def _shared(one: Ints, other: Ints) -> int:
    """How many first ids are the same."""
    n = min(len(one), len(other))
    different = np.flatnonzero(one[:n] != other[:n])
    return int(different[0]) if len(different) else n


def _split(node: Node, at: int) -> Node:
    """Cut a stretch in two; returns the upper part."""
    assert node.parent is not None
    upper = Node(node.sequence, node.start, at, node.parent, [node])
    upper.reads = [(i, first, min(last, at)) for i, first, last in node.reads if first < at]
    node.reads = [(i, max(first, at), last) for i, first, last in node.reads if last > at]
    node.parent.children[-1] = upper  # sequences come in order: what is cut was added last
    node.start, node.parent = at, upper
    return upper


def _note_reads(node: Node, request: int, first: int, last: int) -> None:
    """Note on each stretch of the path to a node which positions a request reads there."""
    here: Node | None = node
    while here is not None and here.end > first:
        here.reads.append((request, max(first, here.start), min(last, here.end)))
        here = here.parent


def _measure(root: Node) -> None:
    """Set the size of every node."""
    order = list(_preorder([root]))
    for node in reversed(order):
        node.size = node.end - node.start + sum(child.size for child in node.children)


def _preorder(nodes: Sequence[Node]) -> Iterator[Node]:
    waiting = list(reversed(nodes))
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(reversed(node.children))


def _pass(held: int, branches: Sequence[Node], full: Sequence[Ints]) -> Pass:
    """Whole branches side by side."""
    nodes = list(_preorder(branches))
    lengths = [node.end - node.start for node in nodes]
    places = np.concatenate([[0], np.cumsum(lengths)])
    after = {id(node): i for i, node in enumerate(nodes)}
    until, read, target, request = [], [], [], []
    for i, (node, place) in enumerate(zip(nodes, places.tolist(), strict=False)):
        last = i  # the last node of its branch follows it without a gap
        below = node
        while below.children:
            below = below.children[-1]
            last = after[id(below)]
        until.append(np.full(lengths[i], places[last + 1]))
        for which, first, end in node.reads:
            first, end = max(first, node.start), min(end, node.end)
            if first < end:
                read.append(np.arange(first, end) - node.start + place)
                target.append(full[which][first + 1 : end + 1])
                request.append(np.full(end - first, which))
    none = [np.empty(0, np.int64)]
    return Pass(
        held,
        np.concatenate([node.sequence[node.start : node.end] for node in nodes]),
        np.concatenate([np.arange(node.start, node.end) for node in nodes]),
        np.concatenate(until),
        *(np.concatenate(parts or none) for parts in (read, target, request)),
    )
