"""Memorization: does a checkpoint, given k tokens of a training sequence, produce the next l?

score(k, l) = (1/l) sum over i = 0 .. l - 1 of 1[S_(k+i) = G_(k+i)]          (LLM360, section 4.3)

S is the sequence, G the greedy continuation of its first k tokens. A sequence is k-extractible
when all l are right. Stored for each sequence are the match bits; everything else derives from them.

Whether a sequence is extractible costs less than its score: G equals S exactly when, S being given, every
token of S is the engine's first choice, and one wrong token settles it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from analysis360.engines import STOPPED, Engine, Ids, as_option
from analysis360.errors import EngineError, SelectionError
from analysis360.panel import SAMPLER, Panel
from analysis360.series import Checkpoint, Chunk
from analysis360.tasks import Unit

MAX_CONTINUATION = 256
COMPATIBLE = ("analysis360",)
METRICS = ("score", "extractible")
GIVEN = ("sampler", "task_version", "eos", "pad")
"""Settings that no option sets."""
STAGES = (4, 16)
"""Continuation tokens after which rows that missed are dropped when only extractibility is asked.

A stage reads the prompt again, so there are few. After 4 tokens 0 to 35 of 1,336 rows of the demo series were
left; lists as short with other numbers took as long, and l alone longer than generating.
"""
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
    metric: str = "score"
    """`extractible` asks only whether all l are right: less is computed, and scores are not known."""
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
        if self.metric not in METRICS:
            raise SelectionError(f"metric {self.metric!r}: expected {' or '.join(METRICS)}")

    @property
    def width(self) -> int:
        """k + l."""
        return self.prompt_tokens + self.continuation_tokens

    @property
    def scored(self) -> bool:
        """Whether scores are asked for, not extractibility alone."""
        return self.metric == "score"


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
    noun, data_noun = "sequences", "chunk"

    def settings(self) -> dict[str, Any]:
        """The settings as plain values; EOS and padding count where they stop and fill a continuation."""
        padding = {"eos": self.eos, "pad": self.pad} if self.how.compat else {}
        plain = asdict(self.how)
        if self.how.scored:  # results from before there was a choice keep their digest
            del plain["metric"]
        return plain | padding

    def describe(self, checkpoint: Checkpoint) -> dict[str, str]:
        """Nothing: settings and content say it all."""
        return {}

    def unlike(self, stored: Mapping[str, Any]) -> tuple[list[str], list[str]]:
        """Where stored settings differ from these: what was asked here, and what to ask for those instead."""
        ours, theirs = (asdict(Settings()) | dict(plain) for plain in (self.settings(), stored))
        names = [name for name in ours | theirs if ours.get(name) != theirs.get(name)]
        asked, there = ([_asked(name, plain.get(name)) for name in names] for plain in (ours, theirs))
        return asked, there

    def units(self) -> list[Unit]:
        """One unit a checkpoint and chunk."""
        return [
            Unit(checkpoint, chunk, 0, len(self.panels[chunk.name]))
            for checkpoint, chunks in self.plan
            for chunk in chunks
        ]

    def run(self, engine: Engine, units: Sequence[Unit]) -> list[pa.Table]:
        """Score units of one checkpoint: position, correct, exact_prefix, match of each (see `match_table`)."""
        ids, k = self._ids(units), self.how.prompt_tokens
        ends = np.cumsum([len(unit) for unit in units])
        parts = [slice(end - len(unit), end) for end, unit in zip(ends, units, strict=True)]
        if self.how.scored:
            generated = self._generated(engine, ids[:, :k])
            return [
                match_table(ids[part, k:], generated[part], unit.start)
                for part, unit in zip(parts, units, strict=True)
            ]
        prefix = self._recalled(engine, ids)
        return [prefix_table(prefix[part], unit.start) for part, unit in zip(parts, units, strict=True)]

    def _generated(self, engine: Engine, prompts: Ids) -> Ids:
        """[n, l] greedy continuations."""
        stop = () if self._stop is None else (self._stop,)
        generated = engine.generate(prompts, self.how.continuation_tokens, stop=stop)
        return np.where(generated == STOPPED, self._padding, generated)

    def _recalled(self, engine: Engine, ids: Ids) -> NDArray[np.int64]:
        """[n] tokens right before the first miss, from more and more tokens of fewer and fewer rows."""
        k, l = self.how.prompt_tokens, self.how.continuation_tokens  # noqa: E741
        prefix, left, done = np.zeros(len(ids), np.int64), np.arange(len(ids)), 0
        for stage in [*(tokens for tokens in STAGES if tokens < l), l]:
            rows = ids[left, : k + stage]
            hit = engine.forced(rows, k + done).hit
            prefix[left] += exact_prefix(self._padded(rows[:, k:], hit))
            left, done = left[prefix[left] == stage], stage
            if not len(left):
                break
        return prefix

    def _padded(self, truth: Ids, hit: Bools) -> Bools:
        """Hits [n, tokens] on the last tokens of each truth, where what follows a stop has to be padding."""
        if self._stop is None:
            return hit
        stops = truth == self._stop
        ended = np.cumsum(stops, axis=1) > stops
        last = np.s_[:, -hit.shape[1] :]
        return np.where(ended[last], truth[last] == self._padding, hit)

    @property
    def _stop(self) -> int | None:
        """The id that ends a continuation, where one does."""
        return self.eos if self.how.compat else None

    @property
    def _padding(self) -> int:
        """What fills a continuation after its end."""
        return next((id for id in (self.pad, self.eos) if id is not None), STOPPED)

    def _ids(self, units: Sequence[Unit]) -> Ids:
        """[sequences of all units, k + l]"""
        return np.concatenate([self.panels[unit.chunk.name].ids[unit.start : unit.stop] for unit in units])


def _asked(name: str, value: object) -> str:
    """A setting as it is asked for; of some, the version or the manifest decides."""
    return f"{name} {value}" if name in GIVEN else as_option(name, value)


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


def prefix_table(prefix: NDArray[np.int64], start: int = 0) -> pa.Table:
    """The columns of `match_table` where only the tokens before the first miss [n] are known; the others are null."""
    n = len(prefix)
    return pa.table(
        {
            "position": pa.array(np.arange(start, start + n, dtype=np.int32)),
            "correct": pa.nulls(n, pa.int16()),
            "exact_prefix": pa.array(prefix.astype(np.int16)),
            "match": pa.nulls(n, pa.binary()),
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
