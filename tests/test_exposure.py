"""Exposure against a walk through the schedule, one position after another."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis360.series import Exposure

quick = settings(deadline=None, database=None, max_examples=200)
NAN = math.nan


@st.composite
def schedules(draw, unknown):
    """(chunks, order, done): repeats are likely; some chunks never come; `done` may pass the known order."""
    chunks = draw(st.integers(1, 6))
    chunk = st.integers(0, chunks - 1)
    order = draw(st.lists(st.none() | chunk if unknown else chunk, max_size=12))
    longest = len(order) + (2 if unknown else 0)
    done = sorted(draw(st.lists(st.integers(0, longest), min_size=1, max_size=5)))
    return chunks, tuple(order), tuple(done)


def walk(chunks, order, done):
    """(times, last) of every chunk after `done` positions; NaN where a walk cannot tell."""
    times, last = [0.0] * chunks, [NAN] * chunks
    blind = False
    for position in range(done):
        chunk = order[position] if position < len(order) else None
        if chunk is None:
            blind = True
            continue
        times[chunk] += 1
        last[chunk] = position + 1
    return [NAN if blind and n == 0 else n for n in times], last


def same(found, expected):
    np.testing.assert_array_equal(found, np.array(expected, dtype=float))


@quick
@given(schedules(unknown=False))
def test_a_known_schedule_agrees_with_a_walk(schedule):
    chunks, order, done = schedule
    exposure = Exposure(chunks, order, done, tokens_per_chunk=1000)
    for checkpoint, finished in enumerate(done):
        times, last = walk(chunks, order, finished)
        same(exposure.times(checkpoint), times)
        same(exposure.last(checkpoint), last)
        assert sum(exposure.times(checkpoint)) == finished == exposure.positions(checkpoint)
        assert exposure.tokens(checkpoint) == 1000 * finished


@quick
@given(schedules(unknown=True))
def test_unknown_positions_leave_chunks_neither_seen_nor_unseen(schedule):
    chunks, order, done = schedule
    exposure = Exposure(chunks, order, done)
    for checkpoint, finished in enumerate(done):
        times, last = walk(chunks, order, finished)
        same(exposure.times(checkpoint), times)
        same(exposure.last(checkpoint), last)


@quick
@given(schedules(unknown=True))
def test_first_is_the_first_position_that_names_the_chunk(schedule):
    chunks, order, done = schedule
    expected = [order.index(chunk) + 1 if chunk in order else NAN for chunk in range(chunks)]
    same(Exposure(chunks, order, done).first(), expected)


@quick
@given(schedules(unknown=False))
def test_a_chunk_is_seen_from_its_first_position_on(schedule):
    chunks, order, done = schedule
    exposure = Exposure(chunks, order, done)
    for checkpoint, finished in enumerate(done):
        same(exposure.times(checkpoint) > 0, exposure.first() <= finished)


def test_a_repeated_chunk_counts_each_time_and_keeps_its_latest():
    exposure = Exposure(4, (2, 0, 2, 1, 2), (1, 3, 5), tokens_per_chunk=10)
    same(exposure.times(0), [0, 0, 1, 0])
    same(exposure.times(1), [1, 0, 2, 0])
    same(exposure.times(2), [1, 1, 3, 0])
    same(exposure.last(1), [2, NAN, 3, NAN])
    same(exposure.last(2), [2, 4, 5, NAN])
    same(exposure.first(), [2, 4, 1, NAN])
    assert exposure.tokens(1) == 30


def test_one_unknown_position_hides_every_chunk_not_seen_for_certain():
    exposure = Exposure(3, (0, None, 1), (1, 2, 3))
    same(exposure.times(0), [1, 0, 0])
    same(exposure.times(1), [1, NAN, NAN])
    same(exposure.times(2), [1, 1, NAN])


def test_positions_past_the_known_schedule_are_unknown():
    same(Exposure(3, (0, 1), (2, 4)).times(0), [1, 1, 0])
    same(Exposure(3, (0, 1), (2, 4)).times(1), [1, 1, NAN])


@pytest.mark.parametrize("exposure", [Exposure(3), Exposure(3, tokens_per_chunk=5)])
def test_no_schedule_means_nothing_is_known(exposure):
    for checkpoint in (0, 7, -1):
        for found in (exposure.times(checkpoint), exposure.last(checkpoint), exposure.first()):
            same(found, [NAN, NAN, NAN])
        assert math.isnan(exposure.positions(checkpoint))
        assert math.isnan(exposure.tokens(checkpoint))


def test_tokens_are_unknown_where_their_number_a_position_is():
    exposure = Exposure(1, (0,), (1,))
    assert exposure.positions(0) == 1
    assert math.isnan(exposure.tokens(0))


def test_a_checkpoint_saved_before_training_has_seen_nothing():
    exposure = Exposure(2, (0, 1), (0, 2), tokens_per_chunk=5)
    same(exposure.times(0), [0, 0])
    same(exposure.last(0), [NAN, NAN])
    assert exposure.tokens(0) == 0
