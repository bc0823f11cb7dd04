"""Evaluation results: a row a (checkpoint, task, metric) with its error, benchmarks, curves, the answers behind."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis360.errors import SelectionError, StoreError
from analysis360.metrics import stages_of
from analysis360.parts import Rows, StoredData, StoredUnit
from analysis360.series import Checkpoint, Series
from analysis360.sweep import Report
from analysis360.tasks import Unit
from analysis360.tasks.leaderboard import Leaderboard
from analysis360.tasks.leaderboard.export import RESAMPLES, in_one_process
from analysis360.tasks.leaderboard.suites import Benchmark

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]
COLUMNS = ("metric", "value", "items", "aggregation", "logprob")
ANSWERS = ("position", *COLUMNS, "greedy", "text")
MOST_NOTES = 5
"""Notes on uneven question sets that are written out."""
FRAME = ("ckpt", "tokens", "task", "shots", "metric", "value", "stderr", "n", "chance")
SUMMARY = ("series", "ckpt", "tokens", "benchmark", "metric", "value", "stderr", "n", "chance", "missing")


@dataclass(frozen=True)
class EvaluationResult:
    """What the selected checkpoints answer to the questions of the asked benchmarks."""

    series: Series
    checkpoints: Sequence[Checkpoint]
    benchmarks: Sequence[Benchmark]
    task: Leaderboard
    """Its plan holds a unit a checkpoint and question set."""
    units: Sequence[Unit]
    rows: Rows
    """The stored rows of the units, in order."""
    report: Report
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        names = ", ".join(one.name for one in self.benchmarks)
        how = self.task.how
        return (
            f"EvaluationResult({self.series.name!r}: {len(self):,} answers, {len(self.checkpoints)} checkpoints, "
            f"{names}, {how.engine} {how.dtype})"
        )

    @cached_property
    def _tokens(self) -> dict[str, float]:
        return {x.name: float(self.series.exposure.tokens(x.index)) for x in self.checkpoints}

    @cached_property
    def _frame(self) -> pd.DataFrame:
        if not len(self.rows):
            raise StoreError("no questions were answered; nothing to show")
        rows = []
        for unit, gathered in zip(self.units, gather(self.units, self.rows), strict=True):
            task, _, shots = unit.chunk.name.rpartition("@")
            ckpt = unit.checkpoint.name
            for metric, figure in gathered.figures().items():
                rows.append((ckpt, self._tokens[ckpt], task, int(shots), metric, *figure))
        return pd.DataFrame(rows, columns=list(FRAME))

    def frame(self) -> pd.DataFrame:
        """A row per (checkpoint, task, metric), in the order asked.

        tokens: trained on at the checkpoint. metric: lm-eval's, with its filter. value: as lm-eval defines it, a
        fraction for accuracies; stderr: its standard error over questions (lm-eval's), NaN where there is none.
        n: questions. chance: what guessing evenly among the choices has, NaN where there is no such thing.
        """
        return self._frame.copy()

    def summary(self) -> pd.DataFrame:
        """A row per (checkpoint, benchmark, metric); `missing` says why a value is NaN.

        Of several tasks the value is the plain mean, and its error that of independent tasks.
        """
        frame = self._frame
        rows = []
        for checkpoint in self.checkpoints:
            here = frame[frame["ckpt"] == checkpoint.name]
            for one in self.benchmarks:
                lead = (self.series.name, checkpoint.name, self._tokens[checkpoint.name])
                rows += [(*lead, *line) for line in _benchmark(here, one)]
        return pd.DataFrame(rows, columns=list(SUMMARY))

    def questions(self, ckpt: str, task: str) -> pd.DataFrame:
        """A row a question of a task under a checkpoint: its metrics, and what the engine answered.

        logprob, greedy: of each choice, or of the text as a whole; text: what was generated.
        """
        places = [
            i
            for i, unit in enumerate(self.units)
            if unit.checkpoint.name == ckpt and task in (unit.chunk.name, unit.chunk.name.rpartition("@")[0])
        ]
        if not places:
            known = sorted({f"{unit.checkpoint.name}, {unit.chunk.name}" for unit in self.units})
            raise SelectionError(
                f"checkpoint {ckpt}, task {task}: not in this result, which has {known[:3]} ..."
            )
        table = self.rows.table(ANSWERS, places).to_pandas().sort_values("position", ignore_index=True)
        metrics = pd.DataFrame(
            [dict(zip(m, v, strict=True)) for m, v in zip(table["metric"], table["value"], strict=True)]
        )
        kept = table.drop(columns=["unit", "metric", "value", "items", "aggregation"])
        found: pd.DataFrame = pd.concat([kept[["position"]], metrics, kept.drop(columns="position")], axis=1)
        return found

    def plot(self, axes: Sequence[Axes] | None = None) -> Any:
        """Figures 4 and 6: each benchmark by tokens trained on, with its 95 % band and what guessing has."""
        from analysis360.figures.evaluations import plot_benchmarks
        from analysis360.figures.stages import Stage

        stages = [Stage(*stage) for stage in stages_of(self.series)]
        return plot_benchmarks(self.summary(), axes, stages)

    def provenance(self) -> pd.DataFrame:
        """A row per part read: versions, tokenizer, machine, checkpoint, when it was written."""
        return pd.DataFrame(list(self.rows.provenance))


class Figure(NamedTuple):
    """One metric of a task."""

    value: float
    stderr: float
    n: int
    chance: float


class Gathered:
    """The stored rows of one task under one checkpoint, as they come."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], list[Any]] = defaultdict(list)
        self._choices: list[int] = []

    def add(self, table: Any) -> None:
        """Some rows more, of COLUMNS."""
        columns = [table[name].to_pylist() for name in COLUMNS]
        for metrics, values, items, kinds, logprobs in zip(*columns, strict=True):
            for metric, value, item, kind in zip(metrics, values, items, kinds, strict=True):
                self._values[metric, kind].append(value if item is None else json.loads(item))
            self._choices.append(len(logprobs))

    def values(self) -> dict[str, list[Any]]:
        """Of every question, by metric."""
        return {metric: values for (metric, _), values in self._values.items()}

    def figures(self) -> dict[str, Figure]:
        """By metric."""
        return {
            metric: Figure(*_aggregated(values, kind), len(values), self._chance(metric, values))
            for (metric, kind), values in self._values.items()
        }

    def _chance(self, metric: str, values: Sequence[Any]) -> float:
        """Of an accuracy over choices."""
        if any(name.startswith("acc_mutual_info") for name, _ in self._values):
            return float("nan")  # each choice was asked twice
        guessed = metric.partition(",")[0] in ("acc", "acc_norm") and min(self._choices) > 1
        if not guessed or not set(values) <= {0.0, 1.0}:
            return float("nan")
        return float(np.mean(1 / np.array(self._choices)))


def gather(units: Sequence[Unit], rows: Rows) -> list[Gathered]:
    """What is stored of each unit."""
    found = [Gathered() for _ in units]
    for table, pieces in rows.read(COLUMNS):
        for piece in pieces:
            found[piece.unit].add(table.slice(piece.offset, piece.rows))
    return found


def _aggregated(values: Sequence[Any], kind: str) -> tuple[float, float]:
    """(value, standard error) of a metric of all questions; the mean is ours, the others are lm-eval's."""
    if kind == "mean":
        numbers = np.array(values, np.float64)
        n = len(numbers)
        return float(numbers.mean()), float(numbers.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    if kind == "own":
        return float("nan"), float("nan")
    from lm_eval.api.metrics import stderr_for_metric
    from lm_eval.api.registry import get_aggregation

    aggregate = get_aggregation(kind)
    error = stderr_for_metric(aggregate, bootstrap_iters=RESAMPLES)
    if error is None or len(values) < 2:
        return float(aggregate(values)), float("nan")
    with in_one_process():
        return float(aggregate(values)), float(error(values))


def _benchmark(here: pd.DataFrame, one: Benchmark) -> list[tuple[Any, ...]]:
    """(benchmark, metric, value, stderr, n, chance, missing) of one checkpoint."""
    if one.shots is not None:
        here = here[here["shots"] == one.shots]
    there = here[here["task"].isin(one.members)]
    if one.metric is None:
        shown = [
            (x.task if x.task != one.task else one.name, x.metric, x.value, x.stderr, x.n, x.chance, "")
            for x in there.itertuples()
        ]
        return shown or [(one.name, "", np.nan, np.nan, 0, np.nan, "not asked")]
    there = there[there["metric"] == one.metric]
    name, n, m = one.shown or one.metric, int(there["n"].sum()), len(one.members)
    if len(there) < m:
        why = f"{len(there)} of {m} tasks are stored" if m > 1 else "not asked"
        return [(one.name, name, np.nan, np.nan, n, np.nan, why)]
    error = float(np.sqrt((there["stderr"] ** 2).sum(skipna=False)) / m)
    value, chance = (float(there[column].mean(skipna=False)) for column in ("value", "chance"))
    why = "an answer is not a finite number; another --dtype may give one" if np.isnan(value) else ""
    return [(one.name, name, value, error, n, chance, why)]


def unevenness(units: Sequence[Unit], rows: Rows) -> list[str]:
    """What keeps checkpoints from being compared: other questions, or not as many; and what is not stored yet."""
    contents: dict[str, dict[str, list[str]]] = {}
    counts: dict[str, set[int]] = {}
    for unit, stored in zip(units, rows.stored, strict=True):
        contents.setdefault(unit.chunk.name, {}).setdefault(unit.chunk.digest, []).append(
            unit.checkpoint.name
        )
        counts.setdefault(unit.chunk.name, set()).add(stored)
    notes = []
    for name, by_content in contents.items():
        if len(by_content) > 1:
            groups = " against ".join(
                f"{x[0]} and {len(x) - 1} more" if x[1:] else x[0] for x in by_content.values()
            )
            notes.append(f"{name}: checkpoints were not asked the same: {groups}; run the older ones again")
        if len(counts[name]) > 1:
            low, high = min(counts[name]), max(counts[name])
            notes.append(f"{name}: {low:,} to {high:,} questions are stored, not as many at every checkpoint")
    return (
        notes
        if len(notes) <= MOST_NOTES
        else [*notes[:MOST_NOTES], f"and {len(notes) - MOST_NOTES} more such"]
    )


def planned_units(task: Leaderboard, asked: Sequence[Benchmark]) -> list[Unit]:
    """A unit a (checkpoint, question set) of a run, in the order asked."""
    found: dict[tuple[str, str], Unit] = {}
    for checkpoint, sets in task.plan:
        for one in asked:
            for questions in (x for x in sets if x.name.rpartition("@")[0] in one.members):
                stored = StoredData(questions.name, questions.digest)
                unit = Unit(checkpoint, stored, 0, task.asked(questions))
                found.setdefault((checkpoint.name, questions.name), unit)
    return list(found.values())


def stored_units(
    checkpoints: Sequence[Checkpoint],
    stored: Sequence[StoredUnit],
    asked: Sequence[Benchmark],
    limit: int | None = None,
) -> tuple[list[Unit], list[str]]:
    """The same of what is stored, without lm-eval to say what it has; and what to know of it.

    Of sets of one name the one stored last counts.
    """
    latest: dict[tuple[str, str], str] = {}
    ends: dict[tuple[str, str, str], int] = {}
    for unit in stored:
        latest[unit.key.ckpt_digest, unit.name] = unit.key.chunk_digest
        key = (unit.key.ckpt_digest, unit.name, unit.key.chunk_digest)
        ends[key] = max(ends.get(key, 0), unit.stop)
    found: dict[tuple[str, str], Unit] = {}
    for checkpoint in checkpoints:
        for one in asked:
            for name in sorted(name for digest, name in latest if digest == checkpoint.digest):
                task, _, shots = name.rpartition("@")
                if task in one.members and (one.shots is None or one.shots == int(shots)):
                    digest = latest[checkpoint.digest, name]
                    stop = ends[checkpoint.digest, name, digest]
                    whole = Unit(checkpoint, StoredData(name, digest), 0, min(stop, limit or stop))
                    found.setdefault((checkpoint.name, name), whole)
    older = len(ends) - len(latest)
    notes = (
        [f"{older} older question sets of the same names are stored too; the newest are read"]
        if older
        else []
    )
    return list(found.values()), notes
