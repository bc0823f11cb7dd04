"""The compact form of a result that every summary of text works from: right tokens by checkpoint and sequence.

One byte a row where l < 255, so 360 checkpoints x 360,000 sequences are 130 MB; nothing here makes more of
them than a few columns of one checkpoint, or a block of sequences, at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis360.errors import Analysis360Error
from analysis360.pairs import Small
from analysis360.summaries.columns import (
    Bools,
    Floats,
    Ints,
    axis_of,
    hits_of,
    is_value,
    need_scores,
    only_extractible,
    require,
    scored,
)

GROUPS = ("trained text", "not yet trained", "held-out text", "canaries", "never planted")

ROLES = ("train", "held-out", "canary")
COLUMNS = (
    "tokens role position exposures first_seen done tokens_since score score_in_document extractible repeats"
)


class Block(NamedTuple):
    """Sequences of one chunk that every checkpoint had been trained on equally often."""

    chunk: int
    """Place among the chunks."""
    columns: slice | Ints
    """Places among the sequences; a slice where they follow one another."""
    exposures: Floats
    """[checkpoints] times trained on; NaN unknown."""
    never: bool = False
    """Whether they are canaries that are never planted."""


@dataclass(frozen=True)
class Grid:
    """Scores of the sequences of some chunks under some checkpoints, and what these had been trained on."""

    ckpts: Sequence[str]
    tokens: Floats
    """[checkpoints] tokens trained on."""
    done: Floats
    """[checkpoints] positions of the schedule finished."""
    chunks: Sequence[str]
    roles: Sequence[str]
    """[chunks] train, held-out or canary."""
    first_seen: Floats
    """[chunks] position of the schedule by which each was first trained on; NaN never or unknown."""
    length: int
    """l: a sequence has 0 to l tokens right."""
    right: Small
    """[checkpoints, sequences] tokens right; `gap` where not scored."""
    blocks: Sequence[Block]
    """Every sequence is in one; in the order of the chunks, each of which has at least one."""
    since: Callable[[int], Floats]
    """Of a checkpoint: [sequences] tokens trained on since the last exposure; NaN never or unknown."""
    in_document: Callable[[int], NDArray[np.floating]]
    """Of a checkpoint: [sequences] share of right tokens up to the first EOS; NaN where it has none."""
    scored: bool = True
    """False where only extractibility is known: `right` is then l or 0."""

    @property
    def gap(self) -> int:
        """What marks a sequence that was not scored."""
        return int(np.iinfo(self.right.dtype).max)

    def need_scores(self, what: str) -> None:
        """Raise Analysis360Error where `what` is drawn from scores and they are not known."""
        need_scores(self.scored, what)

    @cached_property
    def chunk_of(self) -> Ints:
        """[blocks] place of each block's chunk."""
        return np.array([block.chunk for block in self.blocks], np.int64)

    @cached_property
    def exposures(self) -> Floats:
        """[checkpoints, blocks] times trained on; NaN unknown."""
        found = [block.exposures for block in self.blocks]
        return np.array(found, np.float64).reshape(len(found), len(self.ckpts)).T

    @cached_property
    def histogram(self) -> NDArray[np.int32]:
        """[checkpoints, blocks, l + 1] scored sequences with so many tokens right."""
        levels = self.length + 1
        found = np.zeros((len(self.ckpts), len(self.blocks), levels), np.int32)
        row = np.arange(len(self.ckpts), dtype=np.int32)[:, None] * (levels + 1)
        for b, block in enumerate(self.blocks):
            # what is not scored is counted at a level of its own, and dropped
            level = np.minimum(self.right[:, block.columns], levels).astype(np.int32)
            counts = np.bincount((row + level).ravel(), minlength=len(self.ckpts) * (levels + 1))
            found[:, b] = counts.reshape(-1, levels + 1)[:, :levels]
        return found

    def of_role(self, role: str) -> Bools:
        """[blocks] whether their chunk has the role."""
        return np.array([self.roles[chunk] == role for chunk in self.chunk_of], np.bool_)

    def members(self, group: str) -> Bools:
        """[checkpoints, blocks] whether a block is of one of GROUPS; unknown exposure is in none of the first two."""
        exposures, canary = self.exposures, self.of_role("canary")
        if group == "never planted":
            never = canary & np.array([block.never for block in self.blocks], np.bool_)
            return np.broadcast_to(never, exposures.shape)
        if group == "held-out text":
            return np.broadcast_to(self.of_role("held-out"), exposures.shape)
        role = canary if group == "canaries" else self.of_role("train")
        members: Bools = role & (exposures == 0 if group == "not yet trained" else exposures >= 1)
        return members

    def tally(self, k: int, members: Bools) -> NDArray[np.int32]:
        """[chunks, l + 1] scored sequences of checkpoint k in the member blocks, [blocks]."""
        chosen = self.histogram[k] * members[:, None]
        starts = np.searchsorted(self.chunk_of, np.arange(len(self.chunks)))
        return np.add.reduceat(chosen, starts, axis=0) if len(starts) else chosen

    def spread(self, values: NDArray[Any]) -> NDArray[Any]:
        """[sequences] the value of each sequence's block, of `values` [blocks]."""
        found = np.empty(self.right.shape[1], values.dtype)
        for block, value in zip(self.blocks, values, strict=True):
            found[block.columns] = value
        return found


def small_type(length: int) -> type[np.unsignedinteger]:
    """The smallest type that holds 0 to `length` and a mark for what is not there."""
    return np.uint8 if length < np.iinfo(np.uint8).max else np.uint16


def split_equal(columns: NDArray[Any]) -> Iterator[Ints]:
    """Places of equal columns of a matrix [rows, n], a group at a time; NaN equals NaN."""
    rows = np.ascontiguousarray(columns.T)
    packed = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1])))[:, 0]
    _, kind = np.unique(packed, return_inverse=True)
    order = np.argsort(kind, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(kind[order])) + 1)


def grid_of(frame: pd.DataFrame, continuation_tokens: int) -> Grid:
    """The grid of a frame with the columns of `Result.frame()`; any row order and unused categories are fine.

    Rows without a score count as not scored; a frame without any score is of extractibility alone.  Raises
    Analysis360Error on missing columns, on scores that are not multiples of 1/l, l being
    `continuation_tokens`, and where a sequence occurs twice at a checkpoint.
    """
    require(frame, COLUMNS)
    ckpts, chunks = axis_of(frame, "ckpt"), axis_of(frame, "chunk")
    kept, alone = scored(frame), only_extractible(frame)
    score = frame["extractible" if alone else "score"].to_numpy(np.float64)
    position = frame["position"].to_numpy(np.int64)
    sequences, key = np.unique(chunks.codes * (position.max(initial=0) + 1) + position, return_inverse=True)
    if len(np.unique(ckpts.codes * len(sequences) + key)) != len(frame):
        raise Analysis360Error(
            "a sequence (chunk, position) occurs twice at a checkpoint; pass one run's rows"
        )
    shape = len(ckpts), len(sequences)

    def unfolded(column: str) -> Floats:
        matrix = np.full(shape, np.nan)
        matrix[ckpts.codes, key] = frame[column].to_numpy(np.float64)
        return matrix

    dtype = small_type(continuation_tokens)
    right = np.full(shape, np.iinfo(dtype).max, dtype)
    right[ckpts.codes[kept], key[kept]] = hits_of(score[kept], continuation_tokens)
    since, inside, exposures = map(unfolded, ("tokens_since", "score_in_document", "exposures"))
    never = np.zeros(len(sequences), np.bool_)
    never[key] = frame["repeats"].to_numpy(np.float64) == 0
    chunk_of = np.zeros(len(sequences), np.int64)
    chunk_of[key] = chunks.codes
    blocks = [
        Block(int(chunk_of[same[0]]), same, exposures[:, same[0]], bool(never[same[0]]))
        for same in (split_equal(np.vstack([exposures, chunk_of, never])) if len(sequences) else ())
    ]
    blocks.sort(key=lambda block: block.chunk)
    role = chunks.first(frame["role"].map({name: i for i, name in enumerate(ROLES)}))
    return Grid(
        ckpts.names,
        ckpts.first(frame["tokens"]),
        ckpts.first(frame["done"]),
        chunks.names,
        [ROLES[int(i)] for i in role],
        chunks.first(frame["first_seen"].where(is_value(frame, "role", "train"))),
        continuation_tokens,
        right,
        blocks,
        since.__getitem__,
        inside.__getitem__,
        not alone,
    )
