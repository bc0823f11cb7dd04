"""Correlation of sequences between checkpoints (Figure 9)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis360 import pairs
from analysis360.errors import Analysis360Error
from analysis360.summaries.columns import Bools
from analysis360.summaries.grid import GROUPS, Grid

OVER = ("seen", "all", "held-out")


@dataclass(frozen=True)
class Correlations:
    """Correlation of sequences between checkpoints (Figure 9); every table is [checkpoints, checkpoints].

    `value` is "score" (`r` is Pearson's) or "extractible" (`r` is phi, and `phi_max` and `conditional` are
    there: see `pairs.phi`).  `n` counts the sequences behind each cell.  Index and columns are
    checkpoint names.
    """

    value: str
    over: str
    r: pd.DataFrame
    n: pd.DataFrame
    phi_max: pd.DataFrame | None = None
    conditional: pd.DataFrame | None = None


def correlations(grid: Grid, value: str = "score", over: str = "seen") -> Correlations:
    """Correlation between checkpoints over sequences of text (Figure 9).

    `over="seen"` takes for each pair of checkpoints the train sequences that both had been trained on; "all"
    every train sequence, trained on or not; "held-out" the held-out ones, the control: what correlates there
    is predictability, not memory.  Raises Analysis360Error on another `value` or `over`.
    """
    if value not in ("score", "extractible") or over not in OVER:
        raise Analysis360Error(
            f'expected "score" or "extractible", and one of {", ".join(OVER)}; got {value!r}, {over!r}'
        )
    if value == "score":
        grid.need_scores("correlation of scores")
    shared = _shared(grid, value == "extractible", _members(grid, over))

    def labelled(table: NDArray[np.float64] | NDArray[np.int64]) -> pd.DataFrame:
        index = pd.Index(list(grid.ckpts), name="ckpt")
        return pd.DataFrame(table, index=index, columns=index)

    if value == "score":
        return Correlations(value, over, labelled(pairs.pearson(shared)), labelled(shared.n))
    t = pairs.phi(shared)
    tables = labelled(t.phi), labelled(shared.n), labelled(t.phi_max), labelled(t.conditional)
    return Correlations(value, over, *tables)


def _members(grid: Grid, over: str) -> Bools:
    """[checkpoints, blocks] whether a block counts at a checkpoint."""
    if over == "seen":
        return grid.members(GROUPS[0])
    role = grid.of_role("train" if over == "all" else over)
    return np.broadcast_to(role, grid.exposures.shape)


def _shared(grid: Grid, extractible: bool, members: Bools) -> pairs.Shared:
    """Sums over the member sequences that two checkpoints share, block by block."""
    collected = pairs.Pairs(len(grid.ckpts), 1 if extractible else grid.length)
    for b, block in enumerate(grid.blocks):
        rows = members[:, b]
        if not rows.any():
            continue
        for there, x in pairs.whole_blocks(grid.right[:, block.columns][pairs.stretch(rows)], grid.gap):
            present = np.zeros(len(rows), np.bool_)
            present[np.flatnonzero(rows)[there]] = True
            collected.add(present, x == grid.length if extractible else x)
    return collected.shared()
