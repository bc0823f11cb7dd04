"""Memorization: does a checkpoint, given k tokens of a training sequence, produce the next l?

score(k, l) = (1/l) sum over i = 0 .. l - 1 of 1[S_(k+i) = G_(k+i)]          (LLM360, section 4.3)

S is the sequence, G the greedy continuation of its first k tokens. A sequence is k-extractible
when all l are right. Stored for each sequence are the match bits; everything else derives from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from analysis360.engines import STOPPED, Engine, Ids
from analysis360.errors import EngineError, SelectionError
from analysis360.panel import SAMPLER, Panel
from analysis360.series import Checkpoint, Chunk
from analysis360.tasks import Unit

MAX_CONTINUATION = 256
COMPATIBLE = ("analysis360",)
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Settings:
    """Everything of ours that changes a memorization score."""

    prompt_tokens: int = 32
    """k: ids given."""
    continuation_tokens: int = 32
    """l: ids asked for, at most 256."""
    seed: int = 0
    """Master seed of the panels."""
    dtype: str = "float32"
    """Compute dtype."""
    engine: str = "torch"
    """Engine kind."""
    compat: str | None = None
    """`analysis360` stops at EOS and pads, as the published code does."""
    sampler: str = SAMPLER
    task_version: int = 1

    def __post_init__(self) -> None:
        if self.prompt_tokens < 1:
            raise SelectionError(f"prompt tokens: expected at least 1, found {self.prompt_tokens}")
        if not 1 <= self.continuation_tokens <= MAX_CONTINUATION:
            raise SelectionError(
                f"continuation tokens: expected 1 to {MAX_CONTINUATION}, found {self.continuation_tokens}"
            )
        if self.compat is not None and self.compat not in COMPATIBLE:
            raise SelectionError(f"compat {self.compat!r}: expected {' or '.join(COMPATIBLE)}")

    @property
    def width(self) -> int:
        """k + l."""
        return self.prompt_tokens + self.continuation_tokens


@dataclass(frozen=True)
class Memorization:
    """The task: which panels, under which checkpoints."""

    plan: Sequence[tuple[Checkpoint, Sequence[Chunk]]]
    """The chunks to score under each checkpoint."""
    panels: Mapping[str, Panel]
    """By chunk name; every sequence of a panel is scored."""
    how: Settings
    eos: int | None = None
    pad: int | None = None

    name = "memorization"
    schema_version = "memorization/1"

    def settings(self) -> dict[str, Any]:
        """The settings as plain values; EOS and padding count where they stop and fill a continuation."""
        padding = {"eos": self.eos, "pad": self.pad} if self.how.compat else {}
        return asdict(self.how) | padding

    def units(self) -> list[Unit]:
        """One unit a checkpoint and chunk."""
        return [
            Unit(checkpoint, chunk, 0, len(self.panels[chunk.name]))
            for checkpoint, chunks in self.plan
            for chunk in chunks
        ]

    def run(self, engine: Engine, units: Sequence[Unit]) -> list[pa.Table]:
        """Score units of one checkpoint: position, correct, exact_prefix, match of each (see `match_table`)."""
        k, ids = self.how.prompt_tokens, self._ids(units)
        stop = (self.eos,) if self.how.compat and self.eos is not None else ()
        generated = engine.generate(ids[:, :k], self.how.continuation_tokens, stop=stop)
        if self.how.compat:
            pad = self.pad if self.pad is not None else self.eos
            generated = np.where(generated == STOPPED, STOPPED if pad is None else pad, generated)
        ends = np.cumsum([len(unit) for unit in units])
        return [
            match_table(ids[end - len(unit) : end, k:], generated[end - len(unit) : end], unit.start)
            for end, unit in zip(ends, units, strict=True)
        ]

    def _ids(self, units: Sequence[Unit]) -> Ids:
        """[sequences of all units, k + l]"""
        return np.concatenate([self.panels[unit.chunk.name].ids[unit.start : unit.stop] for unit in units])


def match_table(truth: Ids, generated: Ids, start: int = 0) -> pa.Table:
    """Compare continuations [n, l] token by token.

    Columns: position (int32, from `start`), correct (int16, matching tokens of l), exact_prefix
    (int16, matching tokens before the first miss), match (ceil(l / 8) bytes, see `pack`).
    """
    if truth.shape != generated.shape:
        raise EngineError(
            f"expected continuations of shape {list(truth.shape)}, found {list(generated.shape)}"
        )
    match = truth == generated
    return pa.table(
        {
            "position": pa.array(np.arange(start, start + len(match), dtype=np.int32)),
            "correct": pa.array(match.sum(axis=1).astype(np.int16)),
            "exact_prefix": pa.array(exact_prefix(match).astype(np.int16)),
            "match": pack(match).cast(pa.binary()),  # of any l, so that files of several settings read as one
        }
    )


def exact_prefix(match: Bools) -> NDArray[np.int64]:
    """[n] leading True of each row of match [n, l]."""
    leading: NDArray[np.int64] = np.minimum.accumulate(match, axis=1).sum(axis=1)
    return leading


def pack(match: Bools) -> pa.Array:
    """Match bits [n, l] as n binary values of ceil(l / 8) bytes; bit i of byte j is token 8 j + i."""
    packed = np.packbits(match, axis=1, bitorder="little")
    size = packed.shape[1]
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(size), len(packed), [None, pa.py_buffer(packed.tobytes())]
    )


def unpack(column: pa.ChunkedArray | pa.Array, l: int) -> Bools:  # noqa: E741 (the paper's symbol)
    """The match bits [n, l] of packed values: the inverse of `pack`."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    size = -(-l // 8)
    array = array.cast(pa.binary(size))
    raw = np.frombuffer(array.buffers()[1], dtype=np.uint8)[
        array.offset * size : (array.offset + len(array)) * size
    ]
    return np.unpackbits(raw.reshape(len(array), size), axis=1, count=l, bitorder="little").astype(bool)


def score_in_document(match: Bools, first_eos: NDArray[np.int32], k: int) -> NDArray[np.float32]:
    """[n] share of right tokens up to and including the first true EOS; NaN when it lies in the prompt.

    match is [n, l]; first_eos [n] counts from the start of the row and is k + l when there is none.
    """
    l = match.shape[1]  # noqa: E741
    length = np.minimum(first_eos.astype(np.int64) - k + 1, l)
    right = (match & (np.arange(l) < length[:, None])).sum(axis=1)
    return np.where(length > 0, right / np.maximum(length, 1), np.nan).astype(np.float32)
