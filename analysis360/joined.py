"""What stored rows are joined with when they are read: panels, exposure and the plan of the canaries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis360.panel import Panel
from analysis360.series import Checkpoint, Chunk, Series
from analysis360.summaries.grid import ROLES, Block, split_equal

SPACINGS = ("even", "chunk", "never")
Columns = dict[str, NDArray[Any]]
"""Row by row the places of its `ckpt`, `chunk` and `sequence` in their lists, and its `position` in the panel."""


@dataclass(frozen=True)
class Joined:
    """Everything known of a row but its score. Sequences are numbered chunk by chunk, panel by panel."""

    series: Series
    checkpoints: Sequence[Checkpoint]
    chunks: Sequence[Chunk]
    by_name: Mapping[str, Panel]
    """The panel of each chunk."""

    @cached_property
    def panels(self) -> list[Panel]:
        """[chunks]"""
        return [self.by_name[chunk.name] for chunk in self.chunks]

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """[chunks] sequences of each."""
        return np.array([len(panel) for panel in self.panels], np.int64)

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """[chunks] number of the first sequence of each."""
        return np.cumsum(self.sizes) - self.sizes

    @cached_property
    def first_eos(self) -> NDArray[np.int32]:
        """[sequences] position of the first EOS from the start of the row."""
        return np.concatenate([panel.first_eos for panel in self.panels])

    @cached_property
    def tokens(self) -> NDArray[np.float64]:
        """[checkpoints] tokens trained on."""
        return np.array([self.series.exposure.tokens(x.index) for x in self.checkpoints], np.float64)

    @cached_property
    def done(self) -> NDArray[np.float64]:
        """[checkpoints] positions of the schedule finished."""
        return np.array([self.series.exposure.positions(x.index) for x in self.checkpoints], np.float64)

    @cached_property
    def first_seen(self) -> NDArray[np.float64]:
        """[chunks] position of the schedule by which each was first trained on; NaN never or unknown."""
        first = self.series.exposure.first()
        return np.array([first[x.index] if x.role == "train" else np.nan for x in self.chunks], np.float64)

    def rows(self, ckpt: NDArray[np.int64], chunk: NDArray[np.int64], position: NDArray[Any]) -> Columns:
        """The columns of rows given by checkpoint, chunk and position in the panel."""
        return {
            "ckpt": ckpt,
            "chunk": chunk,
            "position": position,
            "sequence": self.offsets[chunk] + position,
        }

    def since(self, k: int) -> NDArray[np.float64]:
        """[sequences] tokens trained on since the last exposure at one checkpoint; NaN never or unknown."""
        chunk, position, place = self._distinct
        return self.exposure(self.rows(np.full(len(chunk), k), chunk, position))["tokens_since"][place]

    @cached_property
    def _distinct(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """(chunk, position) of sequences whose exposure may differ, and for each sequence its place among them."""
        chunk = np.repeat(np.arange(len(self.sizes)), self.sizes)
        position = np.arange(len(chunk)) - np.repeat(self.offsets, self.sizes)
        varied = np.array([self._varied(one) for one in self.chunks], np.bool_)
        kept = varied[chunk] | (position == 0)
        return chunk[kept], position[kept], np.cumsum(kept) - 1

    def _varied(self, chunk: Chunk) -> bool:
        """Whether sequences of the chunk can differ in exposure."""
        return chunk.role == "canary" or (chunk.role == "train" and self.series.exposure.by_rows)

    def text(self, c: Columns) -> dict[str, Any]:
        """Columns of the frame that say what a row is: names, role, place in the chunk, source."""
        return {
            "ckpt": categories(c["ckpt"], [x.name for x in self.checkpoints]),
            "tokens": self.tokens[c["ckpt"]],
            "chunk": categories(c["chunk"], [x.name for x in self.chunks]),
            "role": categories(np.array([ROLES.index(x.role) for x in self.chunks])[c["chunk"]], ROLES),
            "position": c["position"],
            "row": np.concatenate([panel.rows for panel in self.panels])[c["sequence"]],
            "source": pd.Categorical(np.concatenate([panel.sources for panel in self.panels])[c["sequence"]]),
        }

    def exposure(self, c: Columns) -> Columns:
        """Joined when reading, never stored: exposures, first_seen, done, tokens_since of every row."""
        count, latest = self._text_exposure(c)
        which = self._canary_of[c["sequence"]]
        planted = np.flatnonzero(which >= 0)
        times, last = self._plantings
        count[planted] = times[c["ckpt"][planted], which[planted]]
        latest[planted] = last[c["ckpt"][planted], which[planted]]
        since = (self.done[c["ckpt"]] - latest) * (self.series.exposure.tokens_per_chunk or np.nan)
        return {
            "exposures": count.astype(np.float32),
            "first_seen": self.first_seen[c["chunk"]],
            "done": self.done[c["ckpt"]],
            "tokens_since": since,
        }

    def canaries(self, c: Columns) -> dict[str, Any]:
        """Columns of the frame that say how a canary is planted: repeats, spacing, planted_first."""
        first_seen = self.series.exposure.first()
        plans = [canary for _, canary in self._planted]
        repeats = np.array([canary.repeats for canary in plans] + [np.nan], np.float32)
        spacing = np.array([SPACINGS.index(canary.spacing) for canary in plans] + [-1], np.int64)
        first = [
            np.fmin.reduce(first_seen[[chunk for chunk, _ in canary.planted]]) if canary.planted else np.nan
            for canary in plans
        ]
        which = self._canary_of[c["sequence"]]  # -1, the last entry, is no canary
        return {
            "repeats": repeats[which],
            "spacing": categories(spacing[which], SPACINGS),
            "planted_first": np.array([*first, np.nan], np.float64)[which],
        }

    def blocks(self) -> list[Block]:
        """The sequences grouped by chunk and by how often each checkpoint had been trained on them."""
        found = []
        for i, chunk in enumerate(self.chunks):
            n, start = int(self.sizes[i]), int(self.offsets[i])
            if not self._varied(chunk):
                if n:
                    found.append(Block(i, slice(start, start + n), self._exposures(i, 1)[:, 0]))
                continue
            exposures = self._exposures(i, n)
            which = self._canary_of[start : start + n]
            never = np.array([c >= 0 and self._planted[c][1].repeats == 0 for c in which], np.bool_)
            for same in split_equal(np.vstack([exposures, never])) if n else ():
                columns = _as_slice(start + same)
                found.append(Block(i, columns, exposures[:, same[0]], bool(never[same[0]])))
        return found

    def _exposures(self, chunk: int, n: int) -> NDArray[np.float64]:
        """[checkpoints, n] exposures of the first n sequences of a chunk."""
        ckpt, position = np.divmod(np.arange(len(self.checkpoints) * n), n)
        rows = self.rows(ckpt, np.full(len(ckpt), chunk), position)
        return self.exposure(rows)["exposures"].astype(np.float64).reshape(-1, n)

    def _text_exposure(self, c: Columns) -> tuple[NDArray[Any], NDArray[Any]]:
        """(times, last) of the sequences of trained chunks; 0 and NaN of the others.

        Each sequence has those of its own row where the exposure knows rows, otherwise of its chunk.
        """
        exposure = self.series.exposure
        count, latest = np.zeros(len(c["ckpt"])), np.full(len(c["ckpt"]), np.nan)
        train = np.flatnonzero(np.array([chunk.role == "train" for chunk in self.chunks])[c["chunk"]])
        index = np.array([chunk.index for chunk in self.chunks])[c["chunk"][train]]
        if not exposure.by_rows:
            times, last = self._of_chunks
            count[train], latest[train] = times[c["ckpt"][train], index], last[c["ckpt"][train], index]
            return count, latest
        unit = c["ckpt"][train] * len(self.chunks) + c["chunk"][train]
        order = np.argsort(unit, kind="stable")
        starts = np.flatnonzero(np.diff(unit[order], prepend=-1))
        for rows in np.split(train[order], starts[1:]) if len(train) else []:
            place, i = c["ckpt"][rows[0]], c["chunk"][rows[0]]
            window = self.chunks[i].window
            of_chunk = self.panels[i].rows[c["position"][rows]] - (window[0] if window else 0)
            where = (self.checkpoints[place].index, self.chunks[i].index, of_chunk)
            count[rows], latest[rows] = exposure.row_times(*where), exposure.row_last(*where)
        return count, latest

    @cached_property
    def _of_chunks(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """(times, last), each [checkpoints, chunks of the series]."""
        exposure, indices = self.series.exposure, [x.index for x in self.checkpoints]
        return np.array([exposure.times(i) for i in indices]), np.array([exposure.last(i) for i in indices])

    @cached_property
    def _planted(self) -> list[tuple[int, Any]]:
        """(sequence number, Canary) of every canary in the panels."""
        listed = self.series.manifest.canaries
        by_row = {canary.row: canary for canary in listed.rows} if listed else {}
        return [
            (int(self.offsets[i]) + position, by_row[int(row)])
            for i, chunk in enumerate(self.chunks)
            if chunk.role == "canary"
            for position, row in enumerate(self.panels[i].rows)
            if int(row) in by_row
        ]

    @cached_property
    def _canary_of(self) -> NDArray[np.int64]:
        """[sequences] place of each in the list of canaries; -1 for what is none."""
        which = np.full(int(self.sizes.sum()), -1, np.int64)
        which[[sequence for sequence, _ in self._planted]] = np.arange(len(self._planted))
        return which

    @cached_property
    def _plantings(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(times, last) of every canary, each [checkpoints, canaries]: 0 and NaN where never planted."""
        shape = len(self.checkpoints), len(self._planted)
        count, latest = np.zeros(shape), np.full(shape, np.nan)
        for i, (_, canary) in enumerate(self._planted):
            if canary.planted:
                times, last = self._of_rows(canary.planted)
                count[:, i] = times.sum(axis=1)
                with np.errstate(all="ignore"):
                    latest[:, i] = np.fmax.reduce(last, axis=1)
        return count, latest

    def _of_rows(self, planted: Sequence[tuple[int, int]]) -> tuple[NDArray[Any], NDArray[Any]]:
        """(times, last), each [checkpoints, plantings], of rows planted in (chunk, row)."""
        exposure = self.series.exposure
        if not exposure.by_rows:
            chunks = [chunk for chunk, _ in planted]
            times, last = self._of_chunks
            return times[:, chunks], last[:, chunks]
        where = [[(x.index, chunk, row) for chunk, row in planted] for x in self.checkpoints]
        times = np.array([[float(exposure.row_times(*at)) for at in row] for row in where])
        return times, np.array([[float(exposure.row_last(*at)) for at in row] for row in where])


def categories(codes: NDArray[np.int64], names: Sequence[str]) -> Any:
    """An ordered categorical column."""
    return pd.Categorical.from_codes(codes, pd.Index(list(names)), ordered=True)


def _as_slice(columns: NDArray[np.int64]) -> slice | NDArray[np.int64]:
    """A slice where the ascending columns follow one another."""
    following = columns[-1] - columns[0] + 1 == len(columns)
    return slice(int(columns[0]), int(columns[-1]) + 1) if following else columns
