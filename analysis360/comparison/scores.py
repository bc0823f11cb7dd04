"""Scores of models on benchmarks, one a row: what goes into a comparison, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis360.errors import Analysis360Error

COLUMNS = ("model", "benchmark", "value", "stderr", "n", "source")
"""`value` and `stderr` are fractions, `n` is the number of questions; each of the three may be missing."""
TEXTS = ("protocol", "reason")
"""Columns that may be there as well: how the value was measured, and why it is missing."""
KEY = ["model", "source", "benchmark"]


def checked(scores: pd.DataFrame) -> pd.DataFrame:
    """The same rows with every column there is, numbers as float64 and texts as str.

    Raises Analysis360Error naming the first row that is twice there, or whose numbers are no fractions.
    """
    missing = [name for name in COLUMNS if name not in scores.columns]
    if missing:
        raise Analysis360Error(f"scores lack the columns {', '.join(missing)}; expected {', '.join(COLUMNS)}")
    table = pd.DataFrame({name: scores[name].astype(str) for name in KEY}).reset_index(drop=True)
    for name in ("value", "stderr", "n"):
        table[name] = _numbers(scores[name])
    for name in TEXTS:
        texts = scores[name] if name in scores.columns else pd.Series("", index=scores.index)
        table[name] = texts.fillna("").astype(str).to_numpy()
    twice = "is there twice: give each of its measurements a source of its own"
    _refuse(
        table, table.duplicated(KEY), f'{twice}; the paper\'s rows come by themselves, unless paper="none"'
    )
    for name in ("value", "stderr"):
        outside = table[name].notna() & ~table[name].between(0, 1)
        _refuse(table, outside, f"expected a fraction in [0, 1], found {name} {{{name}:g}}")
    return table


def _numbers(column: pd.Series) -> NDArray[np.float64]:
    try:
        return pd.to_numeric(column).to_numpy(np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise Analysis360Error(f"scores: expected numbers in column {column.name!r}: {error}") from None


def _refuse(table: pd.DataFrame, rows: pd.Series, why: str) -> None:
    if rows.any():
        row = {str(name): value for name, value in table[rows].iloc[0].items()}
        raise Analysis360Error(f"{row['model']}, {row['benchmark']} ({row['source']}): {why.format(**row)}")
