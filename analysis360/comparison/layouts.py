"""The layouts of Tables 4 and 5 and the rows printed in them: data, as `published/*.toml`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis360.errors import SelectionError

Floats = NDArray[np.float64]
LAYOUTS = ("table4", "table5")
ROUNDING = 0.01
"""Percentage points that a printed average may be off for being cut, or made of rounded numbers."""


@dataclass(frozen=True)
class Column:
    """A benchmark, or an average of columns to its left."""

    name: str
    group: str = ""
    """What it stands under, where columns are grouped."""
    mean_of: tuple[str, ...] = ()
    """The columns that it is the mean of; none for a benchmark."""
    protocol: str = ""
    """How the paper says that it measured it."""


@dataclass(frozen=True)
class Layout:
    """Columns of a table, and the paper's own rows."""

    title: str
    source: str
    """What the paper's rows are said to be from."""
    columns: tuple[Column, ...]
    models: tuple[str, ...]
    """Of the paper's rows, in its order."""
    printed: Floats
    """[models, columns] percent as printed, averages and slips included; NaN where the paper has a dash."""

    @property
    def names(self) -> list[str]:
        """Names of all columns."""
        return [column.name for column in self.columns]

    @property
    def benchmarks(self) -> list[str]:
        """Names of the columns that are measured."""
        return [column.name for column in self.columns if not column.mean_of]

    def averaged(self, measured: Floats) -> Floats:
        """[rows, columns]: the [rows, benchmarks] with averages at their places, NaN where a part is missing."""
        found: dict[str, Floats] = dict(zip(self.benchmarks, measured.T, strict=True))
        for column in self.columns:
            if column.mean_of:
                found[column.name] = np.mean([found[name] for name in column.mean_of], axis=0)
        return np.stack([found[name] for name in self.names], axis=1)

    def spread(self, errors: Floats) -> Floats:
        """Standard errors in the same form; those of averages take their parts as independent."""
        found: dict[str, Floats] = dict(zip(self.benchmarks, errors.T, strict=True))
        for column in self.columns:
            if column.mean_of:
                parts = np.square([found[name] for name in column.mean_of])
                found[column.name] = np.sqrt(np.sum(parts, axis=0)) / len(column.mean_of)
        return np.stack([found[name] for name in self.names], axis=1)

    def slips(self) -> dict[str, list[tuple[str, float, float]]]:
        """By model, the averages that are not what was averaged: column, recomputed and printed, in percent."""
        measured = [name in self.benchmarks for name in self.names]
        right = self.averaged(self.printed[:, measured])
        found: dict[str, list[tuple[str, float, float]]] = {}
        for i, j in np.argwhere(np.abs(right - self.printed) > ROUNDING):
            slip = (self.columns[j].name, float(right[i, j]), float(self.printed[i, j]))
            found.setdefault(self.models[i], []).append(slip)
        return found


@cache
def layout_of(name: str) -> Layout:
    """The layout called so. Raises SelectionError."""
    if name not in LAYOUTS:
        raise SelectionError(f"layout {name!r}: expected one of {', '.join(LAYOUTS)}")
    file = resources.files("analysis360") / "comparison" / "published" / f"{name}.toml"
    raw = tomllib.loads(file.read_text(encoding="utf-8"))
    columns = tuple(
        Column(**{**column, "mean_of": tuple(column.get("mean_of", ()))}) for column in raw["columns"]
    )
    models = tuple(row[0] for row in raw["printed"])
    printed = np.array([row[1:] for row in raw["printed"]], np.float64)
    return Layout(raw["title"], raw["source"], columns, models, printed)


def published(layout: str = "table4") -> pd.DataFrame:
    """The paper's rows of a table as scores: what `compare` takes, in the paper's order, without its averages.

    The paper states neither errors nor numbers of questions: these are missing. Raises SelectionError.
    """
    table = layout_of(layout)
    rows = [
        {
            "model": model,
            "benchmark": column.name,
            "value": value / 100,
            "stderr": np.nan,
            "n": np.nan,
            "source": table.source,
            "protocol": column.protocol,
        }
        for model, values in zip(table.models, table.printed, strict=True)
        for column, value in zip(table.columns, values, strict=True)
        if not column.mean_of and np.isfinite(value)
    ]
    return pd.DataFrame(rows)
