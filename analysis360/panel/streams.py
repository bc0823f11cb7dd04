"""Counter-based random streams: the same numbers in every version of every library, from any place on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis360.digests import digest_of

RANK = "keyed-rank/1"
"""Rows in the order of a keyed hash of their number."""


def stream_key(sampler: str, seed: int, identity: str) -> int:
    """The 64-bit key of a chunk's own stream under a master seed."""
    return int(digest_of([sampler, seed, identity]), 16)


def outputs(key: int, first: int, count: int) -> NDArray[np.uint64]:
    """[count] outputs of splitmix64 seeded with `key`, from number `first` on: integers below 2**64."""
    with np.errstate(over="ignore"):
        counter = np.arange(count, dtype=np.uint64) + np.uint64(first + 1)
        z = np.uint64(key) + counter * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed: NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return mixed


def below(random: NDArray[np.uint64], limit: int) -> NDArray[np.int64]:
    """floor(random * limit / 2**64) of each, exactly: uniform below `limit`, itself below 2**63.

    Chances of two values differ by at most limit / 2**64 of themselves.
    """
    half, mask = np.uint64(32), np.uint64(0xFFFFFFFF)
    high, low = random >> half, random & mask
    limit_high, limit_low = np.uint64(limit >> 32), np.uint64(limit & 0xFFFFFFFF)
    cross = high * limit_low + (low * limit_low >> half)
    other = low * limit_high + (cross & mask)
    upper: NDArray[np.uint64] = high * limit_high + (cross >> half) + (other >> half)
    return upper.astype(np.int64)


def ranked(count: int, seed: int, identity: str) -> NDArray[np.int64]:
    """[count] row numbers in the order they are drawn, a permutation keyed by (seed, chunk identity)."""
    keys = outputs(stream_key(RANK, seed, identity), 0, count)
    return np.argsort(keys, kind="stable").astype(np.int64)
