"""Prefix trees: every request is answered from its own ids and no others, and nothing is read twice."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis360.engines import Request
from analysis360.engines.trees import passes

IDS = st.lists(st.integers(0, 2), min_size=1, max_size=9).map(tuple)
REQUESTS = st.lists(st.builds(Request, IDS, IDS), max_size=12)


def prefixes(requests: list[Request]) -> set[tuple[int, ...]]:
    """Every distinct prefix that has to be read: the nodes of the tree, by definition."""
    fed = [(one.context + one.continuation)[:-1] for one in requests]
    return {ids[:n] for ids in fed for n in range(1, len(ids) + 1)}


@settings(max_examples=300, deadline=None)
@given(REQUESTS, st.integers(1, 20))
def test_each_token_sees_its_own_prefix(requests: list[Request], budget: int) -> None:
    path: list[int] = []
    answered: list[list[tuple[int, tuple[int, ...]]]] = [[] for _ in requests]
    read = 0
    for one in passes(requests, budget):
        assert one.held <= len(path)
        path = path[: one.held]
        place = np.arange(len(one.ids))
        seen = []
        for i in range(len(one.ids)):
            visible = one.ids[(place <= i) & (i < one.until)]
            seen.append((*path, *visible.tolist()))
            assert len(seen[i]) == one.depth[i] + 1
        for at, target, request in zip(one.read, one.target, one.request, strict=True):
            answered[request].append((int(target), seen[at]))
        if one.straight:  # what a model then holds; after branches only what is cut away follows
            path = list(seen[-1]) if seen else path
        read += len(one.ids)
    for request, found in zip(requests, answered, strict=True):
        whole = request.context + request.continuation
        expected = [(whole[n], whole[:n]) for n in range(len(request.context), len(whole))]
        assert sorted(found, key=lambda both: len(both[1])) == expected
    assert read == len(prefixes(requests))


def test_shared_contexts_are_read_once() -> None:
    shots, questions, choices = tuple(range(100)), range(200, 210), range(300, 304)
    requests = [Request((*shots, q, q), (c,)) for q in questions for c in choices]
    found = list(passes(requests, 50))
    assert sum(len(one.ids) for one in found) == 100 + 2 * 10  # a choice of one id is only asked about
    assert sum(len(one.read) for one in found) == 40


def test_a_pass_is_no_larger_than_its_budget() -> None:
    rng = np.random.default_rng(0)
    requests = [Request(tuple(rng.integers(0, 3, 70)), tuple(rng.integers(0, 3, 20))) for _ in range(50)]
    assert max(len(one.ids) for one in passes(requests, 64)) <= 64


def test_deep_trees_need_no_stack() -> None:
    ids = tuple(range(3000))
    requests = [Request(ids[:n], (ids[n],)) for n in range(1, 3000)]
    assert sum(len(one.ids) for one in passes(requests, 512)) == 2999
