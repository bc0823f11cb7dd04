"""Results of code evaluation: pass@k of each checkpoint and benchmark, and the programs behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis360.errors import SelectionError
from analysis360.metrics import stages_of
from analysis360.parts import Rows, StoredData, StoredUnit
from analysis360.series import Checkpoint, Series
from analysis360.store import Store
from analysis360.sweep import Report
from analysis360.tasks import Unit
from analysis360.tasks.code.passing import Passing, passing
from analysis360.tasks.code.task import Code, asked_of, rescore

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = ("position", "samples", "passed", "verdict")
FRAME = ("ckpt", "tokens", "benchmark", "prompt", "task_id", "sample", "passed", "verdict", "text")
SUMMARY = ("series", "ckpt", "tokens", "benchmark", "metric", "value", "stderr", "low", "high", "n")
SHOWN = {"humaneval": "HumanEval", "mbpp": "MBPP"}
"""Benchmarks as tables and figures call them."""


@dataclass(frozen=True)
class CodeResult:
    """What the selected checkpoints wrote, and how much of it passes."""

    series: Series
    checkpoints: Sequence[Checkpoint]
    task: Code
    ks: tuple[int, ...]
    """Of pass@k."""
    rows: Rows
    """The stored rows of what was asked of each checkpoint (see `Code.wholes`)."""
    report: Report
    correct: Sequence[NDArray[np.int64]]
    """[wholes][stored problems] programs that pass."""
    notes: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        how = self.task.how
        return (
            f"CodeResult({self.series.name!r}: {len(self.rows):,} problems, {len(self.checkpoints)} checkpoints, "
            f"{how.samples} samples at temperature {how.temperature:g}, {how.engine} {how.dtype})"
        )

    def summary(self) -> pd.DataFrame:
        """A row per (checkpoint, benchmark, k), in the order asked.

        tokens: trained on at the checkpoint. metric: `pass@k`. value: a fraction in [0, 1], NaN where no problem is
        stored; stderr: its standard error over problems; low, high: its 95 % interval; n: problems.
        """
        rows: list[tuple[Any, ...]] = []
        for unit, correct in zip(self.task.wholes(), self.correct, strict=True):
            for k in self.ks:
                found = passing(correct.tolist(), self.task.how.samples, k)
                name = SHOWN[asked_of(unit).questions.problems.name]
                rows.append((*self._of(unit), name, f"pass@{k}", *_numbers(found)))
        return pd.DataFrame([(self.series.name, *row) for row in rows], columns=list(SUMMARY))

    def frame(self, ckpt: str | None = None) -> pd.DataFrame:
        """A row per (checkpoint, benchmark, problem, program), of one checkpoint when it is named.

        text: what was written, up to the first stop; verdict: how it was judged when it was written.
        Raises SelectionError for a checkpoint that is not there.
        """
        names = [checkpoint.name for checkpoint in self.checkpoints]
        if ckpt is not None and ckpt not in names:
            raise SelectionError(f"checkpoint {ckpt!r} is not in this result; it has {', '.join(names)}")
        rows: list[tuple[Any, ...]] = []
        for i, unit in enumerate(self.task.wholes()):
            if ckpt in (None, unit.checkpoint.name):
                rows += self._programs(i, unit)
        return pd.DataFrame(rows, columns=list(FRAME))

    def _programs(self, i: int, unit: Unit) -> list[tuple[Any, ...]]:
        questions = asked_of(unit).questions
        lead = (*self._of(unit), questions.problems.name, questions.style.name)
        table = self.rows.table(COLUMNS, [i])
        if not len(table):
            return []
        found = []
        for row in table.sort_by("position").to_pylist():
            task_id = questions.problems.problems[row["position"]].task_id
            each = zip(row["passed"], row["verdict"], row["samples"], strict=True)
            found += [(*lead, task_id, sample, *program) for sample, program in enumerate(each)]
        return found

    def _of(self, unit: Unit) -> tuple[str, float]:
        checkpoint = unit.checkpoint
        return checkpoint.name, float(self.series.exposure.tokens(checkpoint.index))

    def rescore(self) -> CodeResult:
        """The stored programs judged again, without a model; the store stays as it is. Raises SandboxError."""
        correct, changed, programs = [], 0, 0
        for i, unit in enumerate(self.task.wholes()):
            before = self.rows.table(COLUMNS, [i])
            if not len(before):
                correct.append(np.zeros(0, np.int64))
                continue
            after = rescore(before, asked_of(unit).questions, self.task.how.limits, self.task.workers)
            correct.append(counts(after["passed"].to_pylist()))
            pairs = [_flat(table["passed"].to_pylist()) for table in (before, after)]
            changed += sum(a != b for a, b in zip(*pairs, strict=True))
            programs += len(pairs[0])
        note = f"{programs:,} programs were judged again; {changed} pass that did not, or the other way"
        return replace(self, correct=correct, notes=[*self.notes, note])

    def plot(self, axes: Sequence[Axes] | None = None) -> Any:
        """Figure 6: pass@k of each benchmark by tokens trained on, with its 95 % band; for the first k."""
        from analysis360.figures.evaluations import plot_benchmarks
        from analysis360.figures.stages import Stage

        summary = self.summary()
        first = summary[summary["metric"] == f"pass@{self.ks[0]}"]
        return plot_benchmarks(first, axes, [Stage(*stage) for stage in stages_of(self.series)])

    def provenance(self) -> pd.DataFrame:
        """A row per part read: versions, machine, checkpoint, when it was written."""
        return pd.DataFrame(list(self.rows.provenance))


@dataclass(frozen=True)
class StoredPrograms:
    """Settings under which programs are stored, as the store asks for a task."""

    plain: dict[str, Any]
    name = Code.name
    schema_version = Code.schema_version

    def settings(self) -> dict[str, Any]:
        """As they are stored."""
        return self.plain


def stored_summary(
    series: Series, checkpoints: Sequence[Checkpoint], store: Store, engine: str, dtype: str
) -> pd.DataFrame:
    """pass@1 of what is stored, as `CodeResult.summary` has it, without the problems at hand; empty for nothing.

    Of several settings the one with the most programs a problem counts, of several prompts the last stored.
    """
    known = [one for one in store.settings(Code.name) if (one["engine"], one["dtype"]) == (engine, dtype)]
    rows: list[tuple[Any, ...]] = []
    if known:
        how = max(known, key=lambda one: one["samples"])
        stored = store.stored(StoredPrograms(how))
        for checkpoint in checkpoints:
            mine = [unit for unit in stored if unit.key.ckpt_digest == checkpoint.digest]
            for name in SHOWN:
                keys = [unit.key for unit in mine if unit.name.partition("/")[0] == name]
                parts = [unit for unit in mine if keys and unit.key == keys[-1]]
                if parts:
                    found = _numbers(passing(_passed(checkpoint, parts).tolist(), how["samples"], 1))
                    tokens = float(series.exposure.tokens(checkpoint.index))
                    rows.append((series.name, checkpoint.name, tokens, SHOWN[name], "pass@1", *found))
    return pd.DataFrame(rows, columns=list(SUMMARY))


def _passed(checkpoint: Checkpoint, parts: Sequence[StoredUnit]) -> NDArray[np.int64]:
    """[problems] programs that pass, of one checkpoint and benchmark."""
    data = StoredData(parts[0].name, parts[0].key.chunk_digest)
    rows = Rows([Unit(checkpoint, data, 0, max(part.stop for part in parts))], lambda: parts)
    return counts(rows.table(["passed"])["passed"].to_pylist())


def read_correct(task: Code, rows: Rows) -> list[NDArray[np.int64]]:
    """[wholes][stored problems] programs that pass, of the stored rows of a task."""
    found: list[list[NDArray[np.int64]]] = [[] for _ in task.wholes()]
    for table, pieces in rows.read(["passed"]):
        for piece in pieces:
            some = table["passed"].slice(piece.offset, piece.rows).to_pylist()
            found[piece.unit].append(counts(some))
    return [np.concatenate(some) if some else np.zeros(0, np.int64) for some in found]


def counts(passed: Sequence[Sequence[bool]]) -> NDArray[np.int64]:
    """[problems] programs that pass."""
    return np.array([sum(some) for some in passed], np.int64)


def _numbers(found: Passing) -> tuple[float, float, float, float, int]:
    return found.value, found.stderr, found.low, found.high, found.problems


def _flat(nested: Sequence[Sequence[bool]]) -> list[bool]:
    return [one for some in nested for one in some]
