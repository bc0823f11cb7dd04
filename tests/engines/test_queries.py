"""What vLLM is asked: answers put together from queries are those of each request alone, and little is read."""

from __future__ import annotations

import hashlib
import math

from hypothesis import given
from hypothesis import strategies as st

from analysis360.engines import Likelihood, Request
from analysis360.engines.queries import CALL_TOKENS, LAST_IDS, Answer, Answers, Query, pieces, plan

VOCABULARY = 4
few = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=6).map(tuple)


def says(before: tuple[int, ...]) -> list[float]:
    """Log-probabilities of a made-up model: any function of what came before."""
    digest = hashlib.sha256(bytes(before)).digest()
    weights = [1 + digest[token] for token in range(VOCABULARY)]
    return [math.log(weight / sum(weights)) for weight in weights]


def best(before: tuple[int, ...]) -> int:
    return max(range(VOCABULARY), key=lambda token: (says(before)[token], -token))


def alone(request: Request) -> Likelihood:
    ids, start = request.context + request.continuation, len(request.context)
    places = range(start, len(ids))
    return Likelihood(
        sum(says(ids[:i])[ids[i]] for i in places), all(best(ids[:i]) == ids[i] for i in places)
    )


def answered(query: Query) -> Answer:
    ids = query.ids
    given = ((says(ids[:i])[ids[i]], best(ids[:i]) == ids[i]) for i in range(query.start, len(ids)))
    return Answer(tuple(given), {token: says(ids)[token] for token in query.last}, best(ids))


@given(st.lists(st.builds(Request, few, few), max_size=20), st.none() | st.integers(1, 3))
def test_answers_are_those_of_each_request_alone(requests: list[Request], block: int | None) -> None:
    queries, answers = plan(requests, block), Answers()
    for query in queries:
        answers.add(query, answered(query))
    for request in requests:
        found, expected = answers.likelihood(request), alone(request)
        assert math.isclose(found.logprob, expected.logprob)
        assert found.greedy == expected.greedy
    asked = [query.ids for query in queries if query.last]
    assert len(asked) == len(set(asked)) == len({c + e[:-1] for c, e in requests})
    assert [query.ids for query in queries] == sorted(query.ids for query in queries)
    assert all(0 < query.start <= len(query.ids) for query in queries)


def test_choices_of_one_id_are_one_query() -> None:
    requests = [Request((1, 2, 300), (letter,)) for letter in (5, 9, 7, 5)]
    assert plan(requests, 2) == [Query((1, 2, 300), 3, (5, 7, 9))]


def test_a_context_of_blocks_is_read_before_what_continues_it() -> None:
    context = tuple(range(10))
    requests = [Request(context, (1, 2, 3)), Request(context, (1, 2, 4)), Request(context, (7, 8))]
    longer = [Query((*context, 1, 2), 10, (3, 4)), Query((*context, 7), 10, (8,))]
    assert plan(requests, 4) == [Query(context[:-1], 9, ()), *longer]
    assert plan(requests, None) == plan(requests, 10) == longer
    asked_itself = [*requests, Request(context, (5,))]
    assert plan(asked_itself, 4) == [Query(context, 10, (5,)), *longer]
    assert plan(requests[:2], 4) == longer[:1]  # one query: nobody else would read the context


def test_more_next_ids_than_one_query_may_ask_for() -> None:
    n = 2 * LAST_IDS + 3
    requests = [Request((7, 8), (9, token)) for token in range(n)]
    queries = plan(requests, None)
    assert [len(query.last) for query in queries] == [LAST_IDS, LAST_IDS, 3]
    assert [query.start for query in queries] == [2, 3, 3]
    answers = Answers()
    for query in queries:
        given = ((-1.0, True),) * (3 - query.start)
        answers.add(query, Answer(given, {token: -float(token) for token in query.last}, 200))
    found = [answers.likelihood(request) for request in requests]
    assert [one.logprob for one in found] == [-1.0 - token for token in range(n)]
    assert [token for token in range(n) if found[token].greedy] == [200]


@given(st.lists(st.integers(1, CALL_TOKENS // 2), max_size=12))
def test_calls_hold_every_query_in_order(lengths: list[int]) -> None:
    queries = [Query((0,) * length, length, (i,)) for i, length in enumerate(lengths)]
    found = list(pieces(queries))
    assert [query for piece in found for query in piece] == queries
    assert all(sum(len(query.ids) for query in piece[:-1]) < CALL_TOKENS for piece in found)
