"""Memorization results: what the selected checkpoints know of the selected chunks, as tables and figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis360 import summaries
from analysis360.engines import VllmOptions
from analysis360.errors import SelectionError
from analysis360.joined import Joined
from analysis360.metrics import read_events, read_metrics
from analysis360.parts import Rows
from analysis360.scored import Scored
from analysis360.series import Checkpoint, Chunk, Series
from analysis360.statistics import Interval, paired_difference
from analysis360.summaries.grid import GROUPS, Grid
from analysis360.sweep import Report
from analysis360.tasks import Unit
from analysis360.tasks.memorization import Memorization

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Value = Literal["score", "extractible"]
Over = Literal["seen", "all", "held-out"]
MIXABLE = ("engine", "device", "machine", "analysis360", "lm-eval", "judge")


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
    rows: Rows
    """The stored rows (see `store.Store.read`)."""
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
            f"{how.engine} {how.dtype}{'' if how.scored else ', extractible only'})"
        )

    @cached_property
    def _scored(self) -> Scored:
        joined = Joined(self.series, self.checkpoints, self.chunks, self.task.panels)
        return Scored(joined, self.task, self.rows)

    @property
    def _grid(self) -> Grid:
        return self._scored.grid

    def _place(self, ckpt: str) -> int:
        names = [checkpoint.name for checkpoint in self.checkpoints]
        if ckpt not in names:
            raise SelectionError(f"checkpoint {ckpt!r} is not in this result; it has {', '.join(names)}")
        return names.index(ckpt)

    def frame(self, ckpt: str | None = None) -> pd.DataFrame:
        """A row per (checkpoint, chunk, sequence), in that order; of one checkpoint when it is named.

        ckpt, chunk, role, source: categories. tokens: trained on at the checkpoint. position: in the
        panel; row: in the chunk. exposures: times this sequence had been trained on at the checkpoint,
        NaN unknown. first_seen, done: positions of the schedule. tokens_since: tokens trained on since
        the last exposure, NaN never. score: share of the l tokens right, in [0, 1]. score_in_document:
        the same up to the first true EOS, NaN when it lies in the prompt. extractible: all l right.
        exact_prefix: tokens right before the first miss. Where the metric is extractible both scores are NaN,
        for no more was asked. repeats, spacing, planted_first: of canaries.
        """
        if ckpt is None:
            return self._whole.copy(deep=False)
        return self._scored.frame(self._scored.units_of(self._place(ckpt)))

    @cached_property
    def _whole(self) -> pd.DataFrame:
        return self._scored.frame(range(len(self._scored.units)))

    def matrix(self, value: str = "score") -> pd.DataFrame:
        """[checkpoint, sequence] of a numeric column of `frame`, NaN where not scored; canaries included.

        The columns are (chunk, position), in series order. Values are float32. Raises SelectionError for another
        value, Analysis360Error where a score is asked for and only extractibility is known.
        """
        if value in ("score", "score_in_document"):
            summaries.need_scores(self.task.how.scored, f"matrix of {value}")
        joined, right = self._scored.joined, self._scored.right
        if value in ("score", "extractible"):
            values = _scores(right, self.task.how.continuation_tokens, value)
            values[right == np.iinfo(right.dtype).max] = np.nan
        else:
            frame = self.frame()
            _check_value("matrix", value, frame.select_dtypes(["number", "bool"]).columns)
            values = np.full(right.shape, np.nan, np.float32)
            sequence = joined.offsets[frame["chunk"].cat.codes.to_numpy()] + frame["position"].to_numpy()
            values[frame["ckpt"].cat.codes.to_numpy(), sequence] = frame[value].to_numpy(dtype=np.float32)
        chunk = np.repeat([x.name for x in self.chunks], joined.sizes)
        position = np.concatenate([np.arange(size) for size in joined.sizes])
        columns = pd.MultiIndex.from_arrays([chunk, position], names=["chunk", "position"])
        return pd.DataFrame(values, pd.Index([x.name for x in self.checkpoints], name="ckpt"), columns)

    @property
    def chunks_in_series(self) -> dict[str, int]:
        """Chunks the series has of each role: whether a selection is a sample or all there is."""
        return {"train": len(self.series.chunks), "held-out": len(self.series.held_out)}

    def summary(self) -> pd.DataFrame:
        """Per checkpoint and group: n, mean score and extractible share with 95 % intervals; NaN what is not known."""
        table = summaries.summary(self._grid, self.chunks_in_series)
        table["ckpt"] = pd.Categorical(table["ckpt"], [x.name for x in self.checkpoints], ordered=True)
        return table

    def difference(self, before: str, after: str, value: Value = "score") -> Interval:
        """Mean of `value` at checkpoint `after` less that at `before`, over sequences both had been trained on.

        Paired by sequence, 95 % interval by bootstrap over chunks. In the unit of `value`: a fraction.
        """
        _check_value("difference", value, get_args(Value))
        if value == "score":
            summaries.need_scores(self.task.how.scored, "difference of scores")
        grid, places = self._grid, [self._place(before), self._place(after)]
        names = [self.checkpoints[place].name for place in places]
        if not set(names) <= set(grid.ckpts):
            return paired_difference([], [], [])
        first, second = (grid.ckpts.index(name) for name in names)
        members = grid.members(GROUPS[0])
        both = grid.spread(members[first] & members[second])
        both &= (grid.right[first] != grid.gap) & (grid.right[second] != grid.gap)
        scores = [_scores(grid.right[k, both], grid.length, value) for k in (first, second)]
        clusters = np.array(grid.chunks)[grid.spread(grid.chunk_of)[both]]
        return paired_difference(scores[0], scores[1], clusters)

    def correlation(self, value: Value = "score", over: Over = "seen") -> Correlation:
        """Checkpoint by checkpoint correlation over sequences seen by both, all, or held-out ones (Figure 9)."""
        grid = self._grid
        control = summaries.correlations(grid, value, "held-out") if self.series.held_out else None
        return Correlation(**vars(summaries.correlations(grid, value, over)), held_out=control)

    def plot_distribution(self, ax: Axes | None = None) -> Axes:
        """Figure 7: the distribution over the l + 1 scores of each checkpoint, seen chunks only."""
        from analysis360 import figures

        control = summaries.distribution(self._grid, "held-out") if self.series.held_out else None
        return figures.plot_distribution(summaries.distribution(self._grid), ax, control)

    def chunk_groups(self) -> pd.DataFrame:
        """Mean score by checkpoint and group of chunks, in the order they were first trained on (Figure 8)."""
        return self._chunk_groups(None)

    def _chunk_groups(self, intervals: bool | None) -> pd.DataFrame:
        scored = sum(chunk.role == "train" for chunk in self.chunks)
        return summaries.chunk_groups(self._grid, intervals, scored == len(self.series.chunks))

    def plot_chunks(self, ax: Axes | None = None) -> Axes:
        """Figure 8: score, or the extractible share, by group of chunks, one line a checkpoint."""
        from analysis360 import figures
        from analysis360.figures.drawing import LINES_IN_LEGEND

        # bands are drawn of so many checkpoints, and intervals cost more than all the rest
        table = self._chunk_groups(len(self._grid.ckpts) <= LINES_IN_LEGEND)
        return figures.plot_chunks(table, ax, held_out=summaries.mean_scores(self._grid, GROUPS[2]))

    def plot_canaries(self, axes: Sequence[Axes] | None = None) -> tuple[Axes, Axes]:
        """Recall of canaries over training, by times planted: spread evenly (left), within one chunk (right)."""
        from analysis360 import figures

        check = self.control_check() if self.task.how.scored else None
        return figures.plot_canaries(self.canary_curves(), check, axes)

    def canary_curves(self) -> pd.DataFrame:
        """Recall of canaries at every checkpoint, by times planted and spacing."""
        return summaries.canary_curves(self._scored.canary_frame())

    def control_check(self) -> pd.DataFrame | None:
        """Whether canaries never planted stay at chance (99.9 % binomial interval); None without canaries.

        Chance is a matter of tokens: raises Analysis360Error where only extractibility is known.
        """
        listed = self.series.manifest.canaries
        if listed is None or not listed.ordinary_ids:
            return None
        return summaries.control_check(
            self._scored.canary_frame(), listed.ordinary_ids, self.task.how.continuation_tokens
        )

    def plot_exposure(self, ax: Axes | None = None) -> Axes:
        """Score against tokens since last exposure, minus not-yet-seen chunks at the same checkpoint."""
        from analysis360 import figures

        return figures.plot_exposure(summaries.exposure_profile(self._grid), ax)

    def provenance(self) -> pd.DataFrame:
        """A row per part read: versions, machine, checkpoint, when it was written."""
        return pd.DataFrame(list(self.rows.provenance))

    def metrics(self) -> pd.DataFrame:
        """The training run's metrics, a row a step. Raises DataError when the series has none."""
        return read_metrics(self.series)

    def events(self) -> pd.DataFrame:
        """Events of the training run, such as chunks that were abandoned; empty when there were none."""
        return read_events(self.series)


def _check_value(what: str, value: str, known: Iterable[str]) -> None:
    if value not in known:
        raise SelectionError(f"{what} of {value!r}: expected one of {', '.join(known)}")


def _scores(right: NDArray[np.unsignedinteger], l: int, value: str) -> NDArray[np.float32]:  # noqa: E741
    """Score or extractibility (0 or 1) of tokens right, of l; the same shape."""
    found = right if value == "score" else np.where(right == l, l, 0)
    scores: NDArray[np.float32] = np.divide(found, l, dtype=np.float32)
    return scores


def unfinished(units: Sequence[Unit], rows: Rows, noun: str, done: str = "scored") -> list[str]:
    """One line when not all rows that were asked for are stored."""
    asked, stored = sum(map(len, units)), len(rows)
    return (
        [f"{stored:,} of {asked:,} {noun} are stored; the rest is not {done} yet"] if stored < asked else []
    )


def mixed_provenance(parts: Sequence[dict[str, Any]]) -> list[str]:
    """One line for every kind of provenance that differs between parts."""
    notes = []
    for key in MIXABLE:
        values = sorted({str(part.get(key)) for part in parts})
        if len(values) > 1:
            notes.append(f"results mix {key}s: {'; '.join(values)}")
    return notes


def other_modes(rows: Rows, asked: VllmOptions) -> list[str]:
    """What to know where modes were asked that are no part of a result's identity: what is stored stays as it is."""
    lacking = rows.tally(lambda part: asked.lacking(VllmOptions.told(part)))
    notes = [
        f"{n:,} of {len(rows):,} sequences were computed without {mode}; another --out computes them anew"
        for mode, n in sorted(lacking.items())
    ]
    on_cpu = any(str(part.get("device")).endswith(" x cpu") for part in rows.provenance)
    if asked.tensor_parallel > 1 and on_cpu:
        notes.append(
            f"the {asked.tensor_parallel} parts of --tensor-parallel are processes that share the CPU"
        )
    return notes
