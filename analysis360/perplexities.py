"""Perplexity results: what each checkpoint makes of text, or of the chunks it had, or had not, been trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis360.errors import SelectionError, StoreError
from analysis360.joined import Joined, categories
from analysis360.metrics import stages_of
from analysis360.parts import Rows
from analysis360.series import Checkpoint, Series
from analysis360.summaries.grid import GROUPS
from analysis360.summaries.losses import ROWS, loss_summary
from analysis360.sweep import Report
from analysis360.tasks import Unit
from analysis360.tasks.perplexity import Perplexity
from analysis360.text import Text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

By = Literal["group", "chunk", "source"]
STORED = ("position", "document", "source", "targets", "eos_targets", "logprob", "eos_logprob", "bytes")


@dataclass(frozen=True)
class PerplexityResult:
    """What the selected checkpoints make of the asked text, or of the asked chunks."""

    series: Series
    checkpoints: Sequence[Checkpoint]
    names: Sequence[str]
    """Of the chunks or texts, in order."""
    task: Perplexity
    units: Sequence[Unit]
    rows: Rows
    """The stored rows of the units, in order."""
    report: Report
    joined: Joined | None = None
    """Of chunks: what their rows are, and what had been trained on."""
    text: Text | None = None
    """Of chunks: what tells which bytes ids stand for; None where there is no tokenizer."""
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        how = self.task.how
        return (
            f"PerplexityResult({self.series.name!r}: {len(self):,} windows, {len(self.checkpoints)} checkpoints, "
            f"{len(self.names)} {'chunks' if how.chunks else 'texts'}, window {how.window}, stride {how.stride}, "
            f"{how.engine} {how.dtype})"
        )

    def frame(self) -> pd.DataFrame:
        """A row per (checkpoint, chunk or text, window), in that order.

        ckpt, chunk (or the text's name), group, source: categories. tokens: trained on at the checkpoint.
        document: in the text; of chunks, the sequence's position in the panel. targets: tokens asked about, and
        logprob their natural-log probability, a sum; eos_targets, eos_logprob: of those, EOS. loss: nats a target.
        bytes: that targets stand for, NaN where not known. Of chunks also role, row, exposures, first_seen, done,
        tokens_since, repeats, spacing and planted_first, as `MemorizationResult.frame` has them. group: of chunks
        as `MemorizationResult.summary` has it, NaN where exposure is not known; of text its name.
        """
        return self._frame.copy(deep=False)

    @cached_property
    def _frame(self) -> pd.DataFrame:
        if not len(self.rows):
            raise StoreError("no windows were scored; nothing to show")
        table = self.rows.table(STORED)
        place = {one.name: i for i, one in enumerate(self.checkpoints)}
        order = {name: i for i, name in enumerate(self.names)}
        of_unit = np.array([(place[u.checkpoint.name], order[u.chunk.name]) for u in self.units])
        ckpt, chunk = of_unit[table["unit"].to_numpy()].T
        sorting = np.lexsort((table["position"].to_numpy(), chunk, ckpt))
        stored = table.drop_columns(["unit"]).take(sorting).to_pandas()
        ckpt, chunk = ckpt[sorting], chunk[sorting]
        columns = self._told(ckpt, chunk, stored)
        sums = stored[["targets", "logprob", "eos_targets", "eos_logprob", "bytes"]].astype({"bytes": float})
        loss = -stored["logprob"] / stored["targets"]
        return pd.DataFrame(columns).assign(**sums, loss=loss)

    def _told(self, ckpt: Any, chunk: Any, stored: pd.DataFrame) -> dict[str, Any]:
        """The columns that say what a row is."""
        position = stored["position"].to_numpy()
        if self.joined is None:
            tokens = [float(self.series.exposure.tokens(one.index)) for one in self.checkpoints]
            return {
                "ckpt": categories(ckpt, [one.name for one in self.checkpoints]),
                "tokens": np.array(tokens)[ckpt],
                "chunk": categories(chunk, self.names),
                "group": categories(chunk, self.names),
                "source": pd.Categorical(stored["source"]),
                "position": position,
                "document": stored["document"],
            }
        c = self.joined.rows(ckpt, chunk, position)
        columns = self.joined.text(c) | self.joined.exposure(c) | self.joined.canaries(c)
        columns["group"] = _groups(columns)
        columns["document"] = position
        if self._bytes is not None:
            stored["bytes"] = self._bytes[c["sequence"]]
        return columns

    @cached_property
    def _bytes(self) -> NDArray[np.int64] | None:
        """[sequences] bytes that the targets of each row of the panels stand for."""
        if self.joined is None or self.text is None:
            return None
        return np.concatenate([self.text.count_bytes(panel.ids[:, 1:]) for panel in self.joined.panels])

    @property
    def sampled(self) -> str:
        """What is a sample of more of its kind (see `summaries.losses`)."""
        if self.joined is None:
            return "document"
        scored = sum(chunk.role == "train" for chunk in self.joined.chunks)
        return ROWS if scored == len(self.series.chunks) else "chunk"

    def summary(self, by: By | Sequence[By] = "group") -> pd.DataFrame:
        """Loss, perplexity and bits per byte by `group`, `chunk`, `source`, or several of them at once.

        See `summaries.losses.loss_summary` for the columns.
        """
        keys = [by] if isinstance(by, str) else list(by)
        for key in keys:
            if key not in get_args(By):
                raise SelectionError(f"summary by {key!r}: expected some of {', '.join(get_args(By))}")
        frame = self._frame
        if self.sampled != "chunk":
            return loss_summary(frame, keys, self.sampled)
        # held-out chunks and canaries are all there are
        train = (frame["role"] == "train").to_numpy()
        if keys == ["source"]:
            return loss_summary(frame, keys, "chunk")
        parts = [loss_summary(frame[train], keys, "chunk"), loss_summary(frame[~train], keys, ROWS)]
        found = pd.concat([part for part in parts if len(part)], ignore_index=True)
        return found.sort_values(["ckpt", *keys], ignore_index=True)

    def matrix(self, without_eos: bool = False) -> pd.DataFrame:
        """[checkpoint, chunk or text] loss, nats a target; NaN where not scored, or where a window has no number."""
        summed = ["logprob", "targets", "eos_logprob", "eos_targets"]
        cells = self._frame.groupby(["ckpt", "chunk"], observed=False)
        sums, numbers = cells[summed].sum(), cells["logprob"].agg(["size", "count"])
        logprob, targets = sums["logprob"], sums["targets"]
        if without_eos:
            logprob, targets = logprob - sums["eos_logprob"], targets - sums["eos_targets"]
        # A sum leaves NaN out, and would be too small.
        known = (targets > 0) & (numbers["size"] == numbers["count"])
        found: pd.DataFrame = (-logprob / targets.where(known)).unstack("chunk")
        return found

    def plot(self, ax: Axes | None = None) -> Axes:
        """Loss over training: of chunks trained on, not yet trained on and held out; of text, of each.

        Canaries, which are no text and far less likely, are in `summary`.
        """
        from analysis360.figures.losses import plot_losses
        from analysis360.figures.stages import Stage

        table = self.summary()
        shown = table[~table["group"].isin(GROUPS[3:])]
        return plot_losses(shown, ax, [Stage(*stage) for stage in stages_of(self.series)])

    def provenance(self) -> pd.DataFrame:
        """A row per part read: versions, machine, checkpoint, tokenizer, when it was written."""
        return pd.DataFrame(list(self.rows.provenance))


def _groups(columns: Mapping[str, Any]) -> Any:
    """[rows] one of GROUPS, the fourth less canaries that were never planted, which are the fifth; or none."""
    role, exposures = np.asarray(columns["role"]), columns["exposures"]
    never = (role == "canary") & (columns["repeats"] == 0)
    chosen = [
        (role == "train") & (exposures >= 1),
        (role == "train") & (exposures == 0),
        role == "held-out",
        (role == "canary") & (exposures >= 1),
        never,
    ]
    return categories(np.select(chosen, range(len(GROUPS)), -1), GROUPS)
