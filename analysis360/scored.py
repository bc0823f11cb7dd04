"""Stored rows under the names of checkpoints and chunks: as one small integer a row, and as a frame.

Only the column of tokens right is read at first; the others when what needs them is asked for. Where only
extractibility was asked, that is the column of tokens before the first miss, and no more is known.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from analysis360.errors import StoreError
from analysis360.joined import Joined
from analysis360.parts import Rows
from analysis360.summaries.grid import Grid, small_type
from analysis360.tasks.memorization import Memorization, match_table, score_in_document, unpack

COLUMNS = ("position", "exact_prefix")
SCORED = ("correct", "match")


@dataclass(frozen=True)
class Scored:
    """The stored rows of a task and what they are joined with."""

    joined: Joined
    task: Memorization
    rows: Rows

    @cached_property
    def units(self) -> NDArray[np.int64]:
        """[units, 2] places of each unit's checkpoint and chunk."""
        if not len(self.rows):
            raise StoreError("no rows were scored; nothing to show")
        place = {checkpoint.name: i for i, checkpoint in enumerate(self.joined.checkpoints)}
        order = {chunk.name: i for i, chunk in enumerate(self.joined.chunks)}
        return np.array([(place[u.checkpoint.name], order[u.chunk.name]) for u in self.task.units()])

    @cached_property
    def right(self) -> NDArray[np.unsignedinteger]:
        """[checkpoints, sequences] tokens right of l; the type's largest value where not scored.

        Where only extractibility is known, l or 0.
        """
        dtype = small_type(self.task.how.continuation_tokens)
        shape = len(self.joined.checkpoints), int(self.joined.sizes.sum())
        places = [(k, int(self.joined.offsets[chunk])) for k, chunk in self.units.tolist()]
        right = np.full(shape, np.iinfo(dtype).max, dtype)
        how = self.task.how
        for table, pieces in self.rows.read(["correct" if how.scored else "exact_prefix"]):
            correct = table.column(0).to_numpy().astype(dtype)
            if not how.scored:
                correct[correct < how.continuation_tokens] = 0
            for offset, unit, start, n in pieces:
                k, first = places[unit]
                right[k, first + start : first + start + n] = correct[offset : offset + n]
        return right

    @cached_property
    def grid(self) -> Grid:
        """What was scored, without checkpoints and chunks that have no row."""
        stored = np.zeros((len(self.joined.checkpoints), len(self.joined.chunks)), np.int64)
        np.add.at(stored, tuple(self.units.T), self.rows.stored)
        ckpts, chunks = np.flatnonzero(stored.any(axis=1)), np.flatnonzero(stored.any(axis=0))
        right, columns = self.right, np.arange(self.right.shape[1])
        if stored.any(axis=1).all() and stored.any(axis=0).all():
            joined = self.joined
        else:
            columns = np.flatnonzero(np.repeat(stored.any(axis=0), self.joined.sizes))
            right = right[np.ix_(ckpts, columns)]
            some = [self.joined.checkpoints[k] for k in ckpts], [self.joined.chunks[i] for i in chunks]
            joined = Joined(self.joined.series, *some, self.task.panels)
        return Grid(
            [x.name for x in joined.checkpoints],
            joined.tokens,
            joined.done,
            [x.name for x in joined.chunks],
            [x.role for x in joined.chunks],
            joined.first_seen,
            self.task.how.continuation_tokens,
            right,
            joined.blocks(),
            joined.since,
            lambda k: self._in_document(int(ckpts[k]))[columns],
            self.task.how.scored,
        )

    def _in_document(self, k: int) -> NDArray[np.float32]:
        """[sequences] score_in_document under checkpoint k; match bits are read where EOS cuts l short."""
        how, eos = self.task.how, self.joined.first_eos
        right = self.right[k]
        if not how.scored:
            return np.full(len(right), np.nan, np.float32)
        usable = (right != np.iinfo(right.dtype).max) & (eos >= how.prompt_tokens)
        found = np.where(usable, right / how.continuation_tokens, np.nan).astype(np.float32)
        cut = usable & (eos < how.width - 1)
        if not cut.any():
            return found
        offsets = self.joined.offsets
        for table, pieces in self.rows.read(["match"], self.units_of(k)):
            rows, sequences = [], []
            for offset, unit, start, n in pieces:
                first = int(offsets[self.units[unit, 1]]) + start
                which = np.flatnonzero(cut[first : first + n])
                rows.append(offset + which)
                sequences.append(first + which)
            chosen = np.concatenate(sequences)
            if not len(chosen):
                continue
            match = unpack(table["match"].take(pa.array(np.concatenate(rows))), how.continuation_tokens)
            found[chosen] = score_in_document(match, eos[chosen], how.prompt_tokens)
        return found

    def units_of(self, k: int) -> list[int]:
        """The units of a checkpoint."""
        return [int(i) for i in np.flatnonzero(self.units[:, 0] == k)]

    def frame(self, units: Iterable[int]) -> pd.DataFrame:
        """The frame of some units (see `MemorizationResult.frame`)."""
        joined, how = self.joined, self.task.how
        stored = self.rows.table([*COLUMNS, *(SCORED if how.scored else ())], units)
        if not len(stored):
            none = np.zeros((0, how.continuation_tokens), np.int32)
            stored = match_table(none, none).append_column("unit", pa.array([], pa.int32()))
        ckpt, chunk = self.units[stored["unit"].to_numpy()].T
        position = stored["position"].to_numpy()
        order = np.lexsort((position, chunk, ckpt))
        c = joined.rows(ckpt[order], chunk[order], position[order])
        stored = stored.take(pa.array(order))
        prefix = stored["exact_prefix"].to_numpy()
        return pd.DataFrame(
            {
                **joined.text(c),
                **joined.exposure(c),
                **self._scores(stored, joined.first_eos[c["sequence"]]),
                "extractible": prefix == how.continuation_tokens,
                "exact_prefix": prefix,
                **joined.canaries(c),
            }
        )

    def _scores(self, stored: pa.Table, first_eos: NDArray[np.int32]) -> dict[str, NDArray[np.float32]]:
        """The columns score and score_in_document of stored rows; NaN where only extractibility was asked."""
        how = self.task.how
        if not how.scored:
            unknown = np.full(len(stored), np.nan, np.float32)
            return {"score": unknown, "score_in_document": unknown.copy()}
        match = unpack(stored["match"], how.continuation_tokens)
        return {
            "score": (stored["correct"].to_numpy() / how.continuation_tokens).astype(np.float32),
            "score_in_document": score_in_document(match, first_eos, how.prompt_tokens),
        }

    def canary_frame(self) -> pd.DataFrame:
        """The rows of canaries, which are few."""
        roles = np.array([chunk.role for chunk in self.joined.chunks])
        return self.frame(np.flatnonzero(roles[self.units[:, 1]] == "canary").tolist())
