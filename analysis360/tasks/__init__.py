"""Tasks: what is asked of an engine about a checkpoint and a piece of data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from analysis360.engines import Engine
from analysis360.series import Checkpoint, Chunk


class Key(NamedTuple):
    """What a unit's numbers depend on beside the settings: content, not names."""

    ckpt_digest: str
    chunk_digest: str


@dataclass(frozen=True)
class Unit:
    """What is computed once, looked up, resumed and sharded: sequences of one chunk under one checkpoint."""

    checkpoint: Checkpoint
    chunk: Chunk
    start: int
    """First position of the chunk's panel."""
    stop: int
    """Position after the last."""

    @property
    def key(self) -> Key:
        """Content identity of checkpoint and chunk."""
        return Key(self.checkpoint.digest, self.chunk.digest)

    def __len__(self) -> int:
        return self.stop - self.start


class Task(Protocol):
    """What a sweep runs. A task never sees the Hub, the store or another checkpoint."""

    name: str
    schema_version: str

    def units(self) -> list[Unit]:
        """Everything asked for, checkpoint by checkpoint."""

    def run(self, engine: Engine, units: Sequence[Unit]) -> list[pa.Table]:
        """Compute units of the checkpoint that is loaded: of each a table with `position` and the task's columns."""

    def settings(self) -> dict[str, Any]:
        """Everything of ours that changes a number; its digest names the results."""
