"""Repetition: how much of a continuation goes round in circles, as early checkpoints do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis360.scorers import Scores


def repetition(rows: Sequence[Sequence[int]]) -> Scores:
    """[rows] of the pairs of neighbouring ids, the share that were there before; NaN below two ids."""
    lengths = np.array([len(row) for row in rows], np.int64)
    width = max(int(lengths.max(initial=0)), 2)
    ids = np.full((len(rows), width), -1, np.int64)
    ids[np.arange(width) < lengths[:, None]] = [token for row in rows for token in row]
    pairs = (ids[:, :-1] << 32) | ids[:, 1:]
    count = np.maximum(lengths - 1, 0)
    past = np.arange(width - 1) >= count[:, None]
    pairs[past] = np.broadcast_to(-1 - np.arange(width - 1), pairs.shape)[past]  # each unlike any other
    pairs.sort(axis=1)
    distinct = 1 + (np.diff(pairs, axis=1) != 0).sum(axis=1) - past.sum(axis=1)
    with np.errstate(invalid="ignore"):
        found: Scores = np.where(count > 0, 1 - distinct / np.maximum(count, 1), np.nan)
    return found
