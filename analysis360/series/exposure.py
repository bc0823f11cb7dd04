"""Exposure: how often, and when last, a checkpoint had been trained on a piece of data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Exposure:
    """A schedule of chunks. What it does not know is NaN: neither seen nor unseen.

    The schedule is a list of positions; `done` counts the positions finished when a checkpoint
    was saved, so a chunk trained on at position p (from 0) is seen once p < done.
    """

    chunks: int
    """Number of chunks the series has."""
    order: tuple[int | None, ...] = ()
    """Chunk trained on at each position of the schedule; None where it is not known which."""
    done: tuple[int, ...] | None = None
    """Positions finished at each checkpoint; None when nothing is known."""
    tokens_per_chunk: int | None = None
    """Tokens trained on in one position."""

    def times(self, checkpoint: int) -> Floats:
        """[chunks] times each chunk had been trained on at the checkpoint; NaN = unknown.

        Where some positions of the schedule are unknown, a count is of the known ones: a lower bound.
        """
        known = self._known(checkpoint)
        if known is None:
            return np.full(self.chunks, np.nan)
        counts = np.bincount(known, minlength=self.chunks).astype(float)
        if len(known) < self.positions(checkpoint):
            counts[counts == 0] = np.nan
        return counts

    def last(self, checkpoint: int) -> Floats:
        """[chunks] positions finished when each chunk was last trained on; NaN = never or unknown."""
        return self._when(self.order[: int(self.positions(checkpoint))] if self.done else (), latest=True)

    def first(self) -> Floats:
        """[chunks] positions finished when each chunk was first trained on; NaN = never or unknown."""
        return self._when(self.order, latest=False)

    def positions(self, checkpoint: int) -> float:
        """Positions of the schedule finished at the checkpoint; NaN = unknown."""
        return float(self.done[checkpoint]) if self.done else np.nan

    def tokens(self, checkpoint: int) -> float:
        """Tokens trained on at the checkpoint; NaN = unknown."""
        return self.positions(checkpoint) * (self.tokens_per_chunk or np.nan)

    def _known(self, checkpoint: int) -> NDArray[np.int64] | None:
        if not self.done:
            return None
        trained = self.order[: self.done[checkpoint]]
        return np.array([chunk for chunk in trained if chunk is not None], dtype=np.int64)

    def _when(self, order: Sequence[int | None], *, latest: bool) -> Floats:
        when = np.full(self.chunks, np.nan)
        for position, chunk in enumerate(order):
            if chunk is not None and (latest or np.isnan(when[chunk])):
                when[chunk] = position + 1
        return when
