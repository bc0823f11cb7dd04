"""Columns of a frame as arrays of numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis360.errors import Analysis360Error

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Axis:
    """A categorical column without its unused categories: `codes` [rows] into `names`."""

    codes: Ints
    names: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def first(self, values: Any) -> Floats:
        """The value at each name, [names], of a column that is constant over the name's rows."""
        found = np.full(len(self), np.nan)
        found[self.codes] = np.asarray(values, np.float64)
        return found


def named(names: Any, index: Any) -> pd.Categorical[str]:
    """A column of ordered names, from their places."""
    codes = np.asarray(index, np.int64)
    return pd.Categorical.from_codes(codes, pd.Index(list(names), dtype=str), ordered=True)


def require(frame: pd.DataFrame, names: str) -> None:
    """Raise Analysis360Error naming every column the table lacks."""
    missing = [name for name in ("ckpt", "chunk", "tokens", *names.split()) if name not in frame.columns]
    if missing:
        raise Analysis360Error(f"the frame lacks the columns {', '.join(missing)}; pass Result.frame()")


def axis_of(frame: pd.DataFrame, name: str) -> Axis:
    """The used categories of a column, in order, and the code of every row."""
    column = frame[name]
    if not isinstance(column.dtype, pd.CategoricalDtype) or column.isna().any():
        raise Analysis360Error(
            f"column {name} must be an ordered Categorical without gaps, got {column.dtype}"
        )
    codes = column.cat.codes.to_numpy(np.int64)
    used = np.bincount(codes, minlength=len(column.cat.categories)) > 0
    names = [str(category) for category, kept in zip(column.cat.categories, used, strict=True) if kept]
    return Axis((np.cumsum(used) - 1)[codes], names)


def is_value(frame: pd.DataFrame, column: str, value: str) -> Bools:
    """[rows] whether a column holds the value."""
    return (frame[column] == value).to_numpy(bool)


def only_extractible(frame: pd.DataFrame) -> bool:
    """Whether a frame is of extractibility alone: no sequence of it has a score."""
    return len(frame) > 0 and bool(frame["score"].isna().all())


def scored(frame: pd.DataFrame) -> Bools:
    """[rows] whether a sequence has a score; all of them where only extractibility is known."""
    return frame["score"].notna().to_numpy(bool) | only_extractible(frame)


def need_scores(known: bool, what: str) -> None:
    """Raise Analysis360Error where `what` is drawn from scores and they are not known."""
    if not known:
        raise Analysis360Error(
            f"{what}: expected scores, but these results hold extractibility only; run with --metric score"
        )


def hits_of(scores: NDArray[Any], continuation_tokens: int) -> Ints:
    """Right tokens behind each score, [rows]."""
    exact = np.asarray(scores, np.float64) * continuation_tokens
    hits = np.rint(exact)
    if (np.abs(exact - hits) > 1e-3).any() or ((hits < 0) | (hits > continuation_tokens)).any():
        raise Analysis360Error(f"scores must be multiples of 1/l in [0, 1] with l = {continuation_tokens}")
    return hits.astype(np.int64)
