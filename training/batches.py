"""A chunk's rows, batch by batch, in file order: each process reads the file and keeps its share."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

from training.distributed import Processes

__all__ = ["Batch", "read_batches"]


@dataclass(frozen=True)
class Batch:
    """One process's share of a step."""

    rows: torch.Tensor
    """Ids [own rows, L + 1]; a single stand-in where there are more processes than rows."""
    own: int
    """Rows that count."""
    share: int
    """The most rows that any process has."""
    targets: int
    """Targets of the step, over all processes."""

    def parts(self, micro_batch: int) -> list[tuple[torch.Tensor, float]]:
        """(rows, weight) of each pass: as many in every process, with stand-ins of weight 0 where rows lack."""
        size = micro_batch or self.share
        own = torch.split(self.rows[: self.own], size) if self.own else ()
        lacking = -(-self.share // size) - len(own)
        return [(rows, 1.0) for rows in own] + [(self.rows[:1], 0.0)] * lacking


def read_batches(path: Path, batch: int, here: Processes, skip: int = 0) -> Iterator[Batch]:
    """The batches of a chunk after the first `skip`, the last with what is left.

    The n-th process takes every n-th row of each.
    """
    with path.open("rb") as file:
        for _ in islice(file, skip * batch):
            pass
        while lines := list(islice(file, batch)):
            own = lines[here.rank :: here.world]
            rows = torch.tensor([json.loads(line)["token_ids"] for line in own or lines[:1]])
            share = -(-len(lines) // here.world)
            yield Batch(rows, len(own), share, len(lines) * (rows.size(1) - 1))
