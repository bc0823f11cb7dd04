"""Tasks: what is asked of an engine about a checkpoint and a piece of data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from analysis360.engines import Engine
from analysis360.series import Checkpoint


class Key(NamedTuple):
    """What a unit's numbers depend on beside the settings: content, not names."""

    ckpt_digest: str
    chunk_digest: str


class Data(Protocol):
    """A piece of data that is asked about: a chunk, or a set of questions."""

    @property
    def name(self) -> str:
        """Its name in the results."""

    @property
    def digest(self) -> str:
        """Its content."""


@dataclass(frozen=True)
class Unit:
    """What is computed once, looked up, resumed and sharded: rows of one piece of data under one checkpoint."""

    checkpoint: Checkpoint
    chunk: Data
    start: int
    """First position of the chunk's panel, or of the questions."""
    stop: int
    """Position after the last."""
    weight: int = 1
    """Sequences that an engine gets of each row."""

    @property
    def key(self) -> Key:
        """Content identity of checkpoint and chunk."""
        return Key(self.checkpoint.digest, self.chunk.digest)

    def __len__(self) -> int:
        return self.stop - self.start


class Task(Protocol):
    """What a sweep runs. A task never sees the Hub, the store or another checkpoint."""

    schema_version: str
    noun: str
    """What its rows are, in the plural: sequences, questions."""
    data_noun: str
    """What a piece of its data is: a chunk, a task."""

    @property
    def name(self) -> str:
        """Of the folder that holds its results."""

    def units(self) -> list[Unit]:
        """Everything asked for, checkpoint by checkpoint."""

    def run(self, engine: Engine, units: Sequence[Unit]) -> list[pa.Table]:
        """Compute units of the checkpoint that is loaded: of each a table with `position` and the task's columns."""

    def describe(self, checkpoint: Checkpoint) -> dict[str, str]:
        """Provenance of the rows beside the engine's and the checkpoint's."""

    def settings(self) -> dict[str, Any]:
        """Everything of ours that changes a number; its digest names the results."""
