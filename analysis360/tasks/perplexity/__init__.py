"""Perplexity: how likely is the next token, under every checkpoint, in text and in the series' own chunks?

    perplexity = exp(-(1/n) sum over targets of log p(target | what is before it in its window))

A target is asked about once, however windows overlap. Stored are sums: means, weighted by targets, perplexity and
bits per byte derive from them, of whatever rows are put together. Nothing is padded and nothing averaged before the
end, so no figure depends on how rows are batched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from analysis360.engines import Engine
from analysis360.errors import SelectionError
from analysis360.panel import SAMPLER
from analysis360.series import Checkpoint
from analysis360.tasks import Data, Unit
from analysis360.tasks.perplexity.passages import Passages
from analysis360.tasks.perplexity.windows import requests

TASK = "perplexity"
SLICE = 256
"""Windows a unit, at most: what an interrupted run loses."""


@dataclass(frozen=True)
class Settings:
    """Everything of ours that changes a number; what is read is told by the content of each piece of data."""

    window: int
    """Ids read at once, at most; of chunks, targets a row."""
    stride: int
    """Targets of each window after a document's first."""
    prefix: bool = True
    """Whether the first token of a document is a target, after the series' prefix id; of chunks, never."""
    seed: int | None = None
    """Master seed of the panels; None for text."""
    eos: int | None = None
    """The id whose likelihood is also told apart."""
    dtype: str = "float32"
    """Compute dtype."""
    engine: str = "torch"
    """Engine kind."""
    sampler: str | None = None
    """Of the panels."""
    task_version: int = 1

    def __post_init__(self) -> None:
        if self.window < 1:
            raise SelectionError(f"window: expected at least 1, found {self.window}")
        if not 1 <= self.stride <= self.window:
            raise SelectionError(f"stride: expected 1 to the window's {self.window}, found {self.stride}")

    def of_chunks(self, seed: int, eos: int | None) -> Settings:
        """The same for rows of chunks."""
        return replace(self, stride=self.window, prefix=False, seed=seed, eos=eos, sampler=SAMPLER)

    @property
    def chunks(self) -> bool:
        """Whether rows of chunks are asked about, not text."""
        return self.seed is not None


@dataclass(frozen=True)
class Perplexity:
    """The task: which passages, under which checkpoints."""

    plan: Sequence[tuple[Checkpoint, Sequence[Data]]]
    """The passages of each checkpoint."""
    how: Settings

    name = TASK
    schema_version = "perplexity/1"
    noun, data_noun = "windows", "text"

    def settings(self) -> dict[str, Any]:
        """The settings as plain values."""
        return asdict(self.how)

    def describe(self, checkpoint: Checkpoint) -> dict[str, str]:
        """What cut text into ids; nothing of chunks, which are ids."""
        data = next(data for one, data in self.plan if one == checkpoint)
        cut = {one.tokenizer for one in data if isinstance(one, Passages) and one.tokenizer}
        return {"tokenizer": " ".join(sorted(cut))} if cut else {}

    def units(self) -> list[Unit]:
        """Slices of each checkpoint's passages."""
        return [
            Unit(checkpoint, one, start, min(start + SLICE, len(one)))
            for checkpoint, data in self.plan
            for one in data
            if isinstance(one, Passages)
            for start in range(0, len(one), SLICE)
        ]

    def run(self, engine: Engine, units: Sequence[Unit]) -> list[pa.Table]:
        """Score windows of one checkpoint: a row each (see `table_of`)."""
        asked = [
            [requests(window, self.how.eos) for window in passages_of(unit).windows[unit.start : unit.stop]]
            for unit in units
        ]
        answers = iter(engine.score([one.request for rows in asked for row in rows for one in row]))
        tables = []
        for unit, rows in zip(units, asked, strict=True):
            sums = np.zeros((len(rows), 2, 2))
            for i, row in enumerate(rows):
                for one, answer in zip(row, islice(answers, len(row)), strict=True):
                    sums[i, int(one.eos)] += answer.logprob, len(one.request.continuation)
            tables.append(table_of(passages_of(unit), unit.start, sums))
        return tables


def passages_of(unit: Unit) -> Passages:
    """The passages that a unit is of."""
    assert isinstance(unit.chunk, Passages)
    return unit.chunk


def table_of(passages: Passages, start: int, sums: Any) -> pa.Table:
    """The columns of windows from `start` on, given their sums [windows, (other, EOS), (log-probability, targets)].

    position, document (int32); source; targets, eos_targets (int32, the second among the first); logprob,
    eos_logprob (float64, natural, of so many targets); bytes (int64, of text; null where ids were given).
    """
    part = slice(start, start + len(sums))
    sizes = None if passages.bytes is None else passages.bytes[part]
    return pa.table(
        {
            "position": pa.array(range(start, start + len(sums)), pa.int32()),
            "document": pa.array(passages.documents[part], pa.int32()),
            "source": pa.array(passages.sources[part], pa.string()),
            "targets": pa.array(sums[:, :, 1].sum(axis=1).astype(np.int32)),
            "eos_targets": pa.array(sums[:, 1, 1].astype(np.int32)),
            "logprob": pa.array(sums[:, :, 0].sum(axis=1)),
            "eos_logprob": pa.array(sums[:, 1, 0]),
            "bytes": pa.nulls(len(sums), pa.int64()) if sizes is None else pa.array(sizes, pa.int64()),
        }
    )
