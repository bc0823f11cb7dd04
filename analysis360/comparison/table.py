"""Models and checkpoints beside one another in the layout of the paper's Tables 4 and 5."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis360.comparison import writing
from analysis360.comparison.layouts import Floats, Layout, layout_of, published
from analysis360.comparison.scores import checked
from analysis360.errors import Analysis360Error, SelectionError

INTERVAL = 1.96
"""Standard errors to either side that hold 95 %."""
PLACES = ("first", "last", "none")
MISSING = "–"


@dataclass(frozen=True)
class Comparison:
    """A table of models by benchmarks and averages, all in percent. Made by `compare`."""

    layout: Layout
    rows: tuple[tuple[str, str], ...]
    """Model and source of each row; a model measured twice has two rows."""
    percent: Floats
    """[rows, columns of the layout]; NaN where it was not measured, and in every average of that."""
    margin: Floats
    """[rows, columns of the layout] percentage points to either side that hold 95 %.

    NaN where not known, and where all answers are alike: a standard error of 0 is no certainty.
    """
    notes: tuple[str, ...]
    """What a reader has to know: where the rows are from, what is missing, what the paper misprints."""

    @property
    def sources(self) -> list[str]:
        """Where rows are from, in order of appearance; tables refer to them by number, from 1."""
        return list(dict.fromkeys(source for _, source in self.rows))

    def frame(self) -> pd.DataFrame:
        """A row per model, a column per benchmark and average in percent, and `source`."""
        return self._framed(self.percent)

    def margins(self) -> pd.DataFrame:
        """The same table with the half-widths of 95 % intervals, in percentage points."""
        return self._framed(self.margin)

    def markdown(self) -> str:
        """With two digits, ± where it is known, and the notes as a list."""
        return writing.markdown(self._title(), self._header(self.layout.names), self._cells(), self.notes)

    def latex(self) -> str:
        """The same as a `table` that needs the package booktabs."""
        groups = ["", *(column.group for column in self.layout.columns), ""]
        names = [
            column.name if not column.group or not column.mean_of else "Avg."
            for column in self.layout.columns
        ]
        return writing.latex(self._title(), self._header(names), self._cells(), self.notes, groups)

    def csv(self) -> str:
        """For programs: model, source, then each column in percent and its margin, empty where not known."""
        frame, margins = self.frame(), self.margins()
        columns = {"source": frame["source"]}
        for name in self.layout.names:
            columns |= {f"{name} (%)": frame[name].round(6), f"{name} ± (%)": margins[name].round(6)}
        return pd.DataFrame(columns).to_csv(lineterminator="\n")

    def _framed(self, values: Floats) -> pd.DataFrame:
        models = pd.Index([model for model, _ in self.rows], name="model")
        frame = pd.DataFrame(values, index=models, columns=self.layout.names)
        return frame.assign(source=[source for _, source in self.rows])

    def _title(self) -> str:
        return f"{self.layout.title}, in percent"

    def _header(self, names: list[str]) -> list[str]:
        return ["model", *names, "source"]

    def _cells(self) -> list[list[str]]:
        numbers = {source: f"[{i}]" for i, source in enumerate(self.sources, 1)}
        return [
            [model, *map(_cell, values, margins), numbers[source]]
            for (model, source), values, margins in zip(self.rows, self.percent, self.margin, strict=True)
        ]


def compare(scores: pd.DataFrame, layout: str = "table4", *, paper: str = "first") -> Comparison:
    """Put models beside one another, and beside the paper's own rows.

    `scores` has a row per model and benchmark: model, benchmark (ARC, HellaSwag, MMLU, TruthfulQA, HumanEval,
    MBPP), value and stderr (fractions), n (questions), source, and if known protocol and reason (why a value is
    missing). Models stay in the order given. `layout` is "table4" or "table5"; `paper` puts the rows printed
    there "first" or "last", or leaves them out ("none"). Averages are recomputed, never over fewer benchmarks
    than the layout asks. Raises SelectionError for a layout or place that does not exist, and
    Analysis360Error for scores that cannot be read.
    """
    table = layout_of(layout)
    if paper not in PLACES:
        raise SelectionError(f"paper rows {paper!r}: expected one of {', '.join(PLACES)}")
    own, printed = checked(scores), checked(published(layout))
    parts = {"first": [printed, own], "last": [own, printed], "none": [own]}[paper]
    every = checked(pd.concat(parts, ignore_index=True))
    if not own["benchmark"].isin(table.benchmarks).any():
        raise Analysis360Error(f"nothing to compare: no score of {', '.join(table.benchmarks)}")
    shown = every[every["benchmark"].isin(table.benchmarks)]
    keys = pd.MultiIndex.from_frame(shown[["model", "source"]].drop_duplicates())
    percent = table.averaged(100 * _grid(shown, "value", keys, table))
    errors = 100 * _grid(shown, "stderr", keys, table)
    margin = INTERVAL * table.spread(np.where(errors == 0, np.nan, errors))
    margin[np.isnan(percent)] = np.nan
    rows = tuple((str(model), str(source)) for model, source in keys)
    notes = tuple(_notes(table, every, rows, bool(np.isfinite(margin).any())))
    return Comparison(table, rows, percent, margin, notes)


def _grid(shown: pd.DataFrame, column: str, keys: pd.MultiIndex, layout: Layout) -> Floats:
    """[rows, benchmarks] of a column."""
    indexed = shown.set_index(["model", "source", "benchmark"])[column]
    return indexed.unstack("benchmark").reindex(index=keys, columns=layout.benchmarks).to_numpy(np.float64)


def _cell(value: float, margin: float) -> str:
    if np.isnan(value):
        return MISSING
    return _digits(value) + ("" if np.isnan(margin) else f" ± {_digits(margin)}")


def _digits(value: float) -> str:
    """Two digits, halves up: means of numbers with two digits are halves often, and floats just miss them."""
    return f"{value + 1e-7:.2f}"


def _notes(
    layout: Layout, every: pd.DataFrame, rows: tuple[tuple[str, str], ...], margins: bool
) -> Iterator[str]:
    sources = list(dict.fromkeys(source for _, source in rows))
    for i, source in enumerate(sources, 1):
        yield f"[{i}] {source}{_measured(every[every['source'] == source], layout)}"
    if len(sources) > 1:
        yield (
            "Rows of different sources were measured under different conditions (prompts, shots, harness, "
            "precision): they are set beside one another, and no parity is claimed."
        )
    average = "Averages are recomputed from the benchmarks, and left out where one is missing"
    yield (
        f"{average}; ± holds 95 % (1.96 standard errors), that of averages takes benchmarks as independent."
        if margins
        else f"{average}."
    )
    for model, slips in layout.slips().items():
        if (model, layout.source) in rows:
            said = ", ".join(f"{name} {_digits(right)} (printed {wrong:.2f})" for name, right, wrong in slips)
            yield f"{layout.source} misprints {model}: {said}."
    for row in every[(every["reason"] != "") & every["value"].isna()].itertuples():
        yield f"{row.model}, {row.benchmark} is missing: {row.reason}"
    left_out = [name for name in every["benchmark"].unique() if name not in layout.benchmarks]
    if left_out:
        yield f"Not in this layout: {', '.join(left_out)}."


def _measured(part: pd.DataFrame, layout: Layout) -> str:
    """How a source measured each benchmark, and on how many questions; said once where it is the same for all."""
    said: dict[str, list[str]] = {}
    for name in layout.benchmarks:
        rows = part[part["benchmark"] == name]
        counts = rows["n"].dropna().astype(int)
        span = " to ".join(f"{n:,}" for n in sorted({counts.min(), counts.max()})) if len(counts) else ""
        how = [*dict.fromkeys(text for text in rows["protocol"] if text), *([f"n = {span}"] if span else [])]
        if how:
            said.setdefault(", ".join(how), []).append(name)
    return "".join(f"; {', '.join(names)}: {how}" for how, names in said.items())
