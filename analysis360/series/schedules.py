"""Schedules of training: by chunks, with chunks left out, by rows, by phases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
    done: tuple[int | None, ...] | None = None
    """Positions finished at each checkpoint, None where not known; None when nothing is known."""
    tokens_per_chunk: int | None = None
    """Tokens trained on in one position."""
    remarks: tuple[str, ...] = ()
    """One line for everything a reader of the counts should know."""

    by_rows = False
    """Whether rows of one chunk differ, so that only `row_times` and `row_last` tell."""

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
        done = self._done(checkpoint)
        return self._when(self.order[:done] if done else (), latest=True)

    def first(self) -> Floats:
        """[chunks] positions by which each chunk was first trained on; NaN = never or unknown."""
        return self._when(self.order, latest=False)

    def row_times(self, checkpoint: int, chunk: int, rows: ArrayLike) -> Floats:
        """Times each of the `rows` (of the chunk, from 0) had been trained on; NaN = unknown."""
        return np.full(np.shape(rows), self.times(checkpoint)[chunk])

    def row_last(self, checkpoint: int, chunk: int, rows: ArrayLike) -> Floats:
        """Positions finished when each of the `rows` was last trained on; NaN = never or unknown."""
        return np.full(np.shape(rows), self.last(checkpoint)[chunk])

    def positions(self, checkpoint: int) -> float:
        """Positions of the schedule finished at the checkpoint; NaN = unknown."""
        done = self._done(checkpoint)
        return np.nan if done is None else float(done)

    def tokens(self, checkpoint: int) -> float:
        """Tokens trained on at the checkpoint; NaN = unknown, as beyond the end of a known order."""
        positions = self.positions(checkpoint)
        beyond = self.order and positions > len(self.order)
        return np.nan if beyond else positions * (self.tokens_per_chunk or np.nan)

    def _done(self, checkpoint: int) -> int | None:
        return self.done[checkpoint] if self.done else None

    def _known(self, checkpoint: int) -> NDArray[np.int64] | None:
        if (done := self._done(checkpoint)) is None:
            return None
        return np.array([chunk for chunk in self.order[:done] if chunk is not None], dtype=np.int64)

    def _when(self, order: Sequence[int | None], *, latest: bool) -> Floats:
        when = np.full(self.chunks, np.nan)
        for position, chunk in enumerate(order):
            if chunk is not None and (latest or np.isnan(when[chunk])):
                when[chunk] = position + 1
        return when


@dataclass(frozen=True)
class SkippedExposure(Exposure):
    """A schedule that left some chunks out, and no one says which.

    Of `order` all but `skipped` chunks were trained on, each once and in that order, and then the
    `repeats`. A chunk can therefore have come up to `skipped` positions before its place in `order`.
    One whose place is behind the checkpoint counts as trained on, though it may be one of those left
    out; one that may have come early enough is unknown, and so are the last `skipped` ones to the end.
    """

    skipped: int = 0
    repeats: tuple[int, ...] = ()

    def times(self, checkpoint: int) -> Floats:
        """[chunks] times each chunk had been trained on, but for chunks left out; NaN = unknown."""
        done = self._done(checkpoint)
        if done is None:
            return np.full(self.chunks, np.nan)
        place, plain = self._places(), min(done, self._plain)
        counts = np.where(place < plain, 1.0, 0.0)
        if done:
            counts[(place >= plain) & (place < plain + self.skipped)] = np.nan
        for chunk in self.repeats[: max(0, done - self._plain)]:
            counts[chunk] += 1
        if done > self._plain + len(self.repeats):
            counts[counts == 0] = np.nan
        return counts

    def last(self, checkpoint: int) -> Floats:
        """[chunks] positions by which each was last trained on, up to `skipped` too many; NaN = unknown."""
        done = self._done(checkpoint) or 0
        when = np.where(self._places() < min(done, self._plain), self._places() + 1.0, np.nan)
        for position, chunk in enumerate(self.repeats[: max(0, done - self._plain)], self._plain):
            when[chunk] = position + 1
        return when

    def first(self) -> Floats:
        """[chunks] positions by which each was first trained on, up to `skipped` too many; NaN = unknown."""
        return np.where(self._places() < self._plain, self._places() + 1.0, np.nan)

    @property
    def _plain(self) -> int:
        """Positions before the repeats."""
        return len(self.order) - self.skipped

    def _places(self) -> Floats:
        """[chunks] place of each in the order; infinite when it has none."""
        places = np.full(self.chunks, np.inf)
        for place, chunk in enumerate(self.order):
            if chunk is not None:
                places[chunk] = place
        return places


@dataclass(frozen=True)
class RowExposure(Exposure):
    """Rows trained on in file order, so many a step, again from the first when all have been read.

    A position is a window of `window_rows` rows. A chunk of which some rows had been trained on and
    others not is unknown as a whole; its rows are known.
    """

    starts: tuple[int, ...] = (0,)
    """[chunks + 1] first row of each chunk, and the number of rows."""
    steps: tuple[int | None, ...] = ()
    """Steps finished at each checkpoint; None where not known."""
    rows_per_step: int = 1
    window_rows: int = 1

    by_rows = True

    def times(self, checkpoint: int) -> Floats:
        """[chunks] times the least trained row of each had been trained on; NaN where only others had been."""
        steps = self.steps[checkpoint]
        if steps is None:
            return np.full(self.chunks, np.nan)
        rounds, rest = divmod(steps * self.rows_per_step, max(self.starts[-1], 1))
        first, end = self._bounds()
        least, most = rounds + (end <= rest), rounds + (first < rest)
        return np.where((least == 0) & (most > 0), np.nan, least.astype(float))

    def last(self, checkpoint: int) -> Floats:
        """[chunks] positions finished when the last row of each was last trained on; NaN = never, or in part."""
        ends = np.diff(self.starts) - 1
        when = [float(self.row_last(checkpoint, chunk, row)) for chunk, row in enumerate(ends)]
        counts = self.times(checkpoint)
        whole = [np.all(self.row_times(checkpoint, i, [0, row]) == counts[i]) for i, row in enumerate(ends)]
        return np.where(np.array(whole, dtype=bool), np.array(when), np.nan)

    def first(self) -> Floats:
        """[chunks] positions by which every row of each was trained on once."""
        return self._end_of_step(self._bounds()[1])

    def row_times(self, checkpoint: int, chunk: int, rows: ArrayLike) -> Floats:
        """Times each of the `rows` (of the chunk, from 0) had been trained on; NaN = unknown."""
        steps = self.steps[checkpoint]
        if steps is None:
            return np.full(np.shape(rows), np.nan)
        rounds, rest = divmod(steps * self.rows_per_step, max(self.starts[-1], 1))
        return np.asarray(rounds + (self.starts[chunk] + np.asarray(rows) < rest), dtype=float)

    def row_last(self, checkpoint: int, chunk: int, rows: ArrayLike) -> Floats:
        """Positions finished when each of the `rows` was last trained on; NaN = never or unknown."""
        counts = self.row_times(checkpoint, chunk, rows)
        read = (counts - 1) * self.starts[-1] + self.starts[chunk] + np.asarray(rows) + 1
        return np.where(counts > 0, self._end_of_step(read), np.nan)

    def positions(self, checkpoint: int) -> float:
        """Windows of rows finished at the checkpoint, in parts too; NaN = unknown."""
        steps = self.steps[checkpoint]
        return np.nan if steps is None else steps * self.rows_per_step / self.window_rows

    def _bounds(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        starts = np.array(self.starts, dtype=np.int64)
        return starts[:-1], starts[1:]

    def _end_of_step(self, rows: ArrayLike) -> Floats:
        """Positions finished after the step in which so many rows had been read."""
        steps = np.ceil(np.asarray(rows, dtype=np.float64) / self.rows_per_step)
        return np.asarray(steps * self.rows_per_step / self.window_rows, dtype=np.float64)


@dataclass(frozen=True)
class PhaseExposure(Exposure):
    """Phases, each with chunks of its own in an order that is not known. A position is a step.

    Before its phase a chunk is unseen and after it seen; in between it is unknown.
    """

    lengths: tuple[int, ...] = ()
    """Steps of each phase, in order."""
    epochs: tuple[int | None, ...] = ()
    """Times each phase trains on its chunks; None: not known, some rows more often than others or never."""
    members: tuple[tuple[int, ...], ...] = ()
    """Chunks of each phase."""
    at: tuple[tuple[int, int] | None, ...] = ()
    """(phase from 0, its steps finished) at each checkpoint; None where not known."""

    def times(self, checkpoint: int) -> Floats:
        """[chunks] times each chunk had been trained on; NaN = unknown. A count is a lower bound
        where a later phase may have trained on the chunk again."""
        where = self.at[checkpoint]
        if where is None:
            return np.full(self.chunks, np.nan)
        counts, begun = np.zeros(self.chunks), np.zeros(self.chunks, dtype=bool)
        placed = np.zeros(self.chunks, dtype=bool)
        for phase, chunks in enumerate(self.members):
            index = np.array(chunks, dtype=np.int64)
            placed[index] = True
            finished = (phase, self.lengths[phase]) <= where
            epochs = self.epochs[phase] if finished else None
            counts[index] += epochs or 0
            begun[index] |= epochs is None and (phase, 0) < where
        counts[(counts == 0) & begun] = np.nan
        counts[~placed] = np.nan
        return counts

    def last(self, checkpoint: int) -> Floats:
        """[chunks] NaN: when in its phase a chunk was trained on is not known."""
        return np.full(self.chunks, np.nan)

    def first(self) -> Floats:
        """[chunks] steps by which each had been trained on for certain; NaN = never or unknown."""
        when = np.full(self.chunks, np.nan)
        for phase, chunks in enumerate(self.members):
            index = np.array(chunks, dtype=np.int64)
            if self.epochs[phase] is not None:
                when[index] = np.fmin(when[index], float(sum(self.lengths[: phase + 1])))
        return when

    def positions(self, checkpoint: int) -> float:
        """Steps finished at the checkpoint, those of earlier phases too; NaN = unknown."""
        where = self.at[checkpoint]
        return np.nan if where is None else float(sum(self.lengths[: where[0]]) + where[1])
