"""Memorization results: the stored table joined with panels, sources and exposure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from analysis360 import summaries
from analysis360.errors import DataError, StoreError
from analysis360.panel import Panel
from analysis360.series import Checkpoint, Chunk, Series
from analysis360.statistics import Interval, paired_difference
from analysis360.sweep import Report
from analysis360.tasks.memorization import Memorization, score_in_document, unpack

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Value = Literal["score", "extractible"]
Over = Literal["seen", "all", "held-out"]
ROLES = ("train", "held-out", "canary")
Columns = dict[str, NDArray[Any]]
SPACINGS = ("even", "chunk", "never")
MIXABLE = ("engine", "device", "machine", "analysis360")


@dataclass(frozen=True)
class Correlation(summaries.Correlations):
    """Correlation of sequences between checkpoints, its control, and its figure."""

    held_out: summaries.Correlations | None = None
    """The same over held-out text."""

    def plot(self, ax: Axes | None = None) -> Axes:
        """Figure 9: a heat map, checkpoint by checkpoint; above the diagonal held-out text."""
        from analysis360 import figures

        return figures.plot_correlation(self, ax, self.held_out)


@dataclass(frozen=True)
class MemorizationResult:
    """What the selected checkpoints know of the selected chunks."""

    series: Series
    checkpoints: Sequence[Checkpoint]
    chunks: Sequence[Chunk]
    """Trained chunks, then held-out ones, then canaries."""
    task: Memorization
    rows: pa.Table
    """The stored rows (see `store.Store.read`)."""
    parts: Sequence[dict[str, Any]]
    """Provenance of each part read."""
    report: Report
    notes: list[str] = field(default_factory=list)
    """What the reader should know: short chunks, mixed provenance, branches that moved."""

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        how = self.task.how
        return (
            f"MemorizationResult({self.series.name!r}: {len(self):,} rows, {len(self.checkpoints)} checkpoints, "
            f"{len(self.chunks)} chunks, k = {how.prompt_tokens}, l = {how.continuation_tokens}, "
            f"{how.engine} {how.dtype})"
        )

    @cached_property
    def _columns(self) -> Columns:
        """Row by row: place of checkpoint, chunk and sequence in their lists."""
        if not len(self.rows):
            raise StoreError("no rows were scored; nothing to show")
        place = {checkpoint.name: i for i, checkpoint in enumerate(self.checkpoints)}
        order = {chunk.name: i for i, chunk in enumerate(self.chunks)}
        units = [(place[u.checkpoint.name], order[u.chunk.name]) for u in self.task.units()]
        ckpt, chunk = np.array(units, dtype=np.int64)[self.rows["unit"].to_numpy()].T
        position = self.rows["position"].to_numpy()
        return {
            "ckpt": ckpt,
            "chunk": chunk,
            "position": position,
            "sequence": self._offsets[chunk] + position,
        }

    @cached_property
    def _panels(self) -> list[Panel]:
        return [self.task.panels[chunk.name] for chunk in self.chunks]

    @cached_property
    def _offsets(self) -> NDArray[np.int64]:
        sizes = [len(panel) for panel in self._panels]
        return np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)

    def frame(self, ckpt: str | None = None) -> pd.DataFrame:
        """A row per (checkpoint, chunk, sequence), in that order; of one checkpoint when it is named.

        ckpt, chunk, role, source: categories. tokens: trained on at the checkpoint. position: in the
        panel; row: in the chunk. exposures: times this sequence had been trained on at the checkpoint,
        NaN unknown. first_seen, done: positions of the schedule. tokens_since: tokens trained on since
        the last exposure, NaN never. score: share of the l tokens right, in [0, 1]. score_in_document:
        the same up to the first true EOS, NaN when it lies in the prompt. extractible: all l right.
        exact_prefix: tokens right before the first miss. repeats, spacing, planted_first: of canaries.
        """
        if ckpt is None:
            return self._whole.copy(deep=False)
        place = [checkpoint.name for checkpoint in self.checkpoints].index(ckpt)
        return self._frame(np.flatnonzero(self._columns["ckpt"] == place))

    @cached_property
    def _whole(self) -> pd.DataFrame:
        return self._frame(np.arange(len(self.rows)))

    def _frame(self, rows: NDArray[np.int64]) -> pd.DataFrame:
        c = {name: column[rows] for name, column in self._columns.items()}
        rows = rows[np.lexsort((c["position"], c["chunk"], c["ckpt"]))]
        c = {name: column[rows] for name, column in self._columns.items()}
        stored = self.rows.take(pa.array(rows))
        how = self.task.how
        match = unpack(stored["match"], how.continuation_tokens)
        correct = stored["correct"].to_numpy()
        first_eos = np.concatenate([p.first_eos for p in self._panels])[c["sequence"]]
        return pd.DataFrame(
            {
                "ckpt": _categories(c["ckpt"], [x.name for x in self.checkpoints]),
                "tokens": np.array([self.series.exposure.tokens(x.index) for x in self.checkpoints])[
                    c["ckpt"]
                ],
                "chunk": _categories(c["chunk"], [x.name for x in self.chunks]),
                "role": _categories(np.array([ROLES.index(x.role) for x in self.chunks])[c["chunk"]], ROLES),
                "position": c["position"],
                "row": np.concatenate([p.rows for p in self._panels])[c["sequence"]],
                "source": pd.Categorical(np.concatenate([p.sources for p in self._panels])[c["sequence"]]),
                **self._exposure(c),
                "score": (correct / how.continuation_tokens).astype(np.float32),
                "score_in_document": score_in_document(match, first_eos, how.prompt_tokens),
                "extractible": correct == how.continuation_tokens,
                "exact_prefix": stored["exact_prefix"].to_numpy(),
                **self._canaries(c),
            }
        )

    def _exposure(self, c: Columns) -> dict[str, NDArray[Any]]:
        """Joined when reading, never stored: exposures, first_seen, done, tokens_since of every row."""
        exposure = self.series.exposure
        done = np.array([exposure.positions(x.index) for x in self.checkpoints])
        count, latest = self._text_exposure(c)
        first = np.full(len(c["ckpt"]), np.nan)
        train = np.array([chunk.role == "train" for chunk in self.chunks])[c["chunk"]]
        index = np.array([chunk.index for chunk in self.chunks])[c["chunk"]]
        first[train] = exposure.first()[index[train]]
        for i, canary in self._planted():
            rows = c["sequence"] == i
            at = c["ckpt"][rows]
            if not canary.planted:
                count[rows] = 0
                continue
            times, last = self._plantings(canary.planted)
            count[rows] = times.sum(axis=1)[at]
            with np.errstate(all="ignore"):
                latest[rows] = np.fmax.reduce(last, axis=1)[at]
        since = (done[c["ckpt"]] - latest) * (exposure.tokens_per_chunk or np.nan)
        return {
            "exposures": count.astype(np.float32),
            "first_seen": first,
            "done": done[c["ckpt"]],
            "tokens_since": since,
        }

    def _text_exposure(self, c: Columns) -> tuple[NDArray[Any], NDArray[Any]]:
        """(times, last) of the sequences of trained chunks; 0 and NaN of the others.

        Each sequence has those of its own row where the exposure knows rows, otherwise of its chunk.
        """
        exposure = self.series.exposure
        count, latest = np.zeros(len(c["ckpt"])), np.full(len(c["ckpt"]), np.nan)
        train = np.flatnonzero(np.array([chunk.role == "train" for chunk in self.chunks])[c["chunk"]])
        index = np.array([chunk.index for chunk in self.chunks])[c["chunk"][train]]
        if not exposure.by_rows:
            times, last = self._of_chunks
            count[train], latest[train] = times[c["ckpt"][train], index], last[c["ckpt"][train], index]
            return count, latest
        unit = c["ckpt"][train] * len(self.chunks) + c["chunk"][train]
        order = np.argsort(unit, kind="stable")
        starts = np.flatnonzero(np.diff(unit[order], prepend=-1))
        for rows in np.split(train[order], starts[1:]) if len(train) else []:
            place, i = c["ckpt"][rows[0]], c["chunk"][rows[0]]
            window = self.chunks[i].window
            of_chunk = self._panels[i].rows[c["position"][rows]] - (window[0] if window else 0)
            where = (self.checkpoints[place].index, self.chunks[i].index, of_chunk)
            count[rows], latest[rows] = exposure.row_times(*where), exposure.row_last(*where)
        return count, latest

    @cached_property
    def _of_chunks(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """(times, last), each [checkpoints, chunks of the series]."""
        exposure, indices = self.series.exposure, [x.index for x in self.checkpoints]
        return np.array([exposure.times(i) for i in indices]), np.array([exposure.last(i) for i in indices])

    def _plantings(self, planted: Sequence[tuple[int, int]]) -> tuple[NDArray[Any], NDArray[Any]]:
        """(times, last), each [checkpoints, plantings], of rows planted in (chunk, row)."""
        exposure = self.series.exposure
        if not exposure.by_rows:
            chunks = [chunk for chunk, _ in planted]
            times, last = self._of_chunks
            return times[:, chunks], last[:, chunks]
        where = [[(x.index, chunk, row) for chunk, row in planted] for x in self.checkpoints]
        times = np.array([[float(exposure.row_times(*at)) for at in row] for row in where])
        return times, np.array([[float(exposure.row_last(*at)) for at in row] for row in where])

    def _planted(self) -> list[tuple[int, Any]]:
        """(sequence number, Canary) of every canary in the panels."""
        listed = self.series.manifest.canaries
        by_row = {canary.row: canary for canary in listed.rows} if listed else {}
        return [
            (int(self._offsets[i]) + position, by_row[int(row)])
            for i, chunk in enumerate(self.chunks)
            if chunk.role == "canary"
            for position, row in enumerate(self._panels[i].rows)
            if int(row) in by_row
        ]

    def _canaries(self, c: Columns) -> dict[str, Any]:
        first_seen = self.series.exposure.first()
        repeats, planted_first = np.full(len(c["ckpt"]), np.nan, np.float32), np.full(len(c["ckpt"]), np.nan)
        spacing = np.full(len(c["ckpt"]), -1)
        for i, canary in self._planted():
            rows = c["sequence"] == i
            repeats[rows], spacing[rows] = canary.repeats, SPACINGS.index(canary.spacing)
            if canary.planted:
                planted_first[rows] = np.fmin.reduce(first_seen[[chunk for chunk, _ in canary.planted]])
        return {"repeats": repeats, "spacing": _categories(spacing, SPACINGS), "planted_first": planted_first}

    def matrix(self, value: str = "score") -> pd.DataFrame:
        """[checkpoint, sequence] of a numeric column of `frame`, NaN where not scored; canaries included.

        The columns are (chunk, position), in series order. Values are float32.
        """
        frame = self.frame()
        sizes = [len(panel) for panel in self._panels]
        values = np.full((len(self.checkpoints), sum(sizes)), np.nan, np.float32)
        sequence = self._offsets[frame["chunk"].cat.codes.to_numpy()] + frame["position"].to_numpy()
        values[frame["ckpt"].cat.codes.to_numpy(), sequence] = frame[value].to_numpy(dtype=np.float32)
        chunk = np.repeat([x.name for x in self.chunks], sizes)
        position = np.concatenate([np.arange(size) for size in sizes])
        columns = pd.MultiIndex.from_arrays([chunk, position], names=["chunk", "position"])
        return pd.DataFrame(values, pd.Index([x.name for x in self.checkpoints], name="ckpt"), columns)

    @property
    def chunks_in_series(self) -> dict[str, int]:
        """Chunks the series has of each role: whether a selection is a sample or all there is."""
        return {"train": len(self.series.chunks), "held-out": len(self.series.held_out)}

    def summary(self) -> pd.DataFrame:
        """Per checkpoint and group: n, mean score and extractible share with 95 % intervals."""
        # Checkpoint by checkpoint, so that memory does not grow with their number.
        tables = [summaries.summary(self.frame(x.name), self.chunks_in_series) for x in self.checkpoints]
        table = pd.concat(tables, ignore_index=True)
        table["ckpt"] = pd.Categorical(table["ckpt"], [x.name for x in self.checkpoints], ordered=True)
        return table

    def difference(self, before: str, after: str, value: Value = "score") -> Interval:
        """Mean of `value` at checkpoint `after` less that at `before`, over sequences both had been trained on.

        Paired by sequence, 95 % interval by bootstrap over chunks. In the unit of `value`: a fraction.
        """
        frame = self.frame()
        seen = frame[(frame["role"] == "train") & (frame["exposures"] >= 1)]
        pair = [
            seen[seen["ckpt"] == name].set_index(["chunk", "position"])[value].astype(np.float64)
            for name in (before, after)
        ]
        both = pd.concat(pair, axis=1, join="inner", keys=["before", "after"])
        clusters = both.index.get_level_values("chunk").astype(str).to_numpy()
        return paired_difference(both["before"].to_numpy(), both["after"].to_numpy(), clusters)

    def correlation(self, value: Value = "score", over: Over = "seen") -> Correlation:
        """Checkpoint by checkpoint correlation over sequences seen by both, all, or held-out ones (Figure 9)."""
        frame = self.frame()
        control = summaries.correlations(frame, value, "held-out") if self.series.held_out else None
        return Correlation(**vars(summaries.correlations(frame, value, over)), held_out=control)

    def plot_distribution(self, ax: Axes | None = None) -> Axes:
        """Figure 7: the distribution over the l + 1 scores of each checkpoint, seen chunks only."""
        from analysis360 import figures

        frame, l = self.frame(), self.task.how.continuation_tokens  # noqa: E741
        control = summaries.distribution(frame, l, "held-out") if self.series.held_out else None
        return figures.plot_distribution(summaries.distribution(frame, l), ax, control)

    def chunk_groups(self) -> pd.DataFrame:
        """Mean score by checkpoint and group of chunks, in the order they were first trained on (Figure 8)."""
        scored = sum(chunk.role == "train" for chunk in self.chunks)
        return summaries.chunk_groups(self.frame(), complete=scored == len(self.series.chunks))

    def plot_chunks(self, ax: Axes | None = None) -> Axes:
        """Figure 8: score by group of chunks, one line a checkpoint."""
        from analysis360 import figures

        return figures.plot_chunks(self.chunk_groups(), ax, held_out=self.summary())

    def plot_canaries(self, axes: Sequence[Axes] | None = None) -> tuple[Axes, Axes]:
        """Recall of canaries over training, by times planted: spread evenly (left), within one chunk (right)."""
        from analysis360 import figures

        return figures.plot_canaries(summaries.canary_curves(self.frame()), self.control_check(), axes)

    def control_check(self) -> pd.DataFrame | None:
        """Whether canaries never planted stay at chance (99.9 % binomial interval); None without canaries."""
        listed = self.series.manifest.canaries
        if listed is None or not listed.ordinary_ids:
            return None
        return summaries.control_check(self.frame(), listed.ordinary_ids, self.task.how.continuation_tokens)

    def plot_exposure(self, ax: Axes | None = None) -> Axes:
        """Score against tokens since last exposure, minus not-yet-seen chunks at the same checkpoint."""
        from analysis360 import figures

        return figures.plot_exposure(summaries.exposure_profile(self.frame()), ax)

    def provenance(self) -> pd.DataFrame:
        """A row per part read: versions, machine, checkpoint, when it was written."""
        return pd.DataFrame(list(self.parts))

    def metrics(self) -> pd.DataFrame:
        """The training run's metrics, a row a step. Raises DataError when the series has none."""
        return read_metrics(self.series)


def mixed_provenance(parts: Sequence[dict[str, Any]]) -> list[str]:
    """One line for every kind of provenance that differs between parts."""
    notes = []
    for key in MIXABLE:
        values = sorted({str(part.get(key)) for part in parts})
        if len(values) > 1:
            notes.append(f"results mix {key}s: {'; '.join(values)}")
    return notes


def read_metrics(series: Series) -> pd.DataFrame:
    """metrics.jsonl of the training run, a row a step; a last line that is still being written is left out.

    Raises DataError when the series has none, or naming the line that cannot be read.
    """
    if series.manifest.metrics is None:
        raise DataError(f"series {series.name}: the manifest names no metrics")
    if series.place is None:
        raise DataError(f"series {series.name}: its release has no metrics")
    path = f"{series.place.where}/{series.manifest.metrics}"
    try:
        text = series.place.read(series.manifest.metrics).decode("utf-8", "replace")
        lines = text.splitlines(keepends=True)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(json.loads(line))
        except ValueError:
            if number < len(lines) or line.endswith("\n"):
                raise DataError(
                    f"{path} line {number}: expected a JSON object, found {line[:60]!r}"
                ) from None
    return pd.DataFrame(records)


def _categories(codes: NDArray[np.int64], names: Sequence[str]) -> Any:
    return pd.Categorical.from_codes(codes, pd.Index(list(names)), ordered=True)
