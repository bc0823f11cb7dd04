"""Figures of the training run itself: the loss (Figure 3), and what else the trainer logs, over tokens.

They need the trainer's metrics alone, and look the same of 100 steps and of 300,000: a line is thinned to the
first, lowest, highest and last step of each column of pixels, so that a spike of one step stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray

from analysis360.figures.drawing import (
    BLUE,
    GREY,
    INK,
    VERMILLION,
    Floats,
    axes_or_new,
    check,
    finish,
    short,
    tidy,
    tokens_axis,
    values,
)
from analysis360.figures.stages import Stage, draw_stages, points_wide, text_width, verticals

SPIKE = 6.0
"""Robust standard deviations above the median of the steps before: a loss so far up is marked as a spike."""
COLUMNS = 1500
"""Columns of pixels that a line is thinned to; about what the axes have in print."""
FAINT: dict[str, Any] = {"lw": 0.8, "alpha": 0.4}
STRONG: dict[str, Any] = {"lw": 1.6}
MARKS = 150
"""Columns that marks are thinned to: closer together they would be one blot."""
NAMED = 4  # chunks given up that are listed in the legend; of more there is only the count

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Run:
    """The metrics of a run and its events, asked for what figures show of them."""

    metrics: pd.DataFrame
    events: pd.DataFrame

    @cached_property
    def tokens(self) -> Floats:
        """Tokens trained at each step."""
        return values(self.metrics, "tokens")

    @cached_property
    def restarts(self) -> Places:
        """Steps that go back behind the one before them: weights were put back, and the line breaks."""
        return np.flatnonzero(np.diff(self.tokens) < 0) + 1

    @cached_property
    def stage_starts(self) -> Places:
        """First steps of all stages but the first; steps of older files, without a stage, belong to a neighbour's."""
        if "stage" not in self.metrics:
            return np.array([], np.int64)
        codes = pd.factorize(self.metrics["stage"].ffill().bfill())[0]
        return np.flatnonzero(np.diff(codes)) + 1

    @property
    def stages(self) -> list[Stage]:
        """The stages in the order they were trained; empty when there is one, or none is named."""
        starts = self.stage_starts
        if not len(starts):
            return []
        names = [str(name) for name in self.metrics["stage"].ffill().bfill().iloc[[0, *starts]]]
        edges = np.minimum(self.tokens[starts - 1], self.tokens[starts])
        ends = [*edges, self.tokens[-1]]
        return [Stage(*stage) for stage in zip(names, [self.tokens[0], *edges], ends, strict=True)]

    @property
    def given_up(self) -> pd.DataFrame:
        """The events of chunks that were abandoned."""
        return self.events[self.events["event"] == "abandoned"] if len(self.events) else self.events

    @property
    def limits(self) -> tuple[float, float]:
        """Tokens from and to, with a margin of 1 %."""
        given_up = self.given_up
        every = np.concatenate([self.tokens, values(given_up, "tokens") if len(given_up) else []])
        low, high = float(np.nanmin(every)), float(np.nanmax(every))
        margin = 0.01 * (high - low) or 0.01 * abs(high) or 1.0
        return low - margin, high + margin

    def smooth(self, y: Floats) -> tuple[Floats, int]:
        """The running median of a hundredth of the steps, never across stages or restarts, and of how many steps."""
        width = max(1, len(y) // 100)
        pieces = np.split(y, np.union1d(self.stage_starts, self.restarts))
        medians = [pd.Series(piece).rolling(width, center=True, min_periods=1).median() for piece in pieces]
        return np.concatenate(medians), width

    def columns(self, count: int) -> Places:
        """The column of each step when the figure has so many."""
        low, high = self.limits
        return np.floor((self.tokens - low) / (high - low) * count).astype(np.int64)

    def line(self, y: Floats) -> tuple[Floats, Floats]:
        """Tokens and `y` to draw: thinned where there is more than can be seen, NaN between restarts."""
        tokens, segment = self.tokens, np.zeros(len(y), np.int64)
        segment[self.restarts] = 1
        segment = np.cumsum(segment)
        if len(y) > 4 * COLUMNS:
            column = self.columns(COLUMNS)
            kept = extremes(y, np.flatnonzero(np.diff(column) | np.diff(segment)) + 1)
            tokens, y, segment = tokens[kept], y[kept], segment[kept]
        breaks = np.flatnonzero(np.diff(segment)) + 1
        return np.insert(tokens, breaks, np.nan), np.insert(y, breaks, np.nan)

    def note(self, checkpoints: int | None) -> str:
        """Steps, tokens, chunks (without those given up), checkpoints and stages."""
        parts = [_count(len(self.metrics), "step"), f"{short(float(self.tokens[-1]))} tokens"]
        if "chunk" in self.metrics:
            place = "position" if "position" in self.metrics else "chunk"
            trained = set(self.metrics[[place, "chunk"]].drop_duplicates().itertuples(index=False, name=None))
            given_up = self.given_up
            if place in given_up:
                trained -= set(given_up[[place, "chunk"]].itertuples(index=False, name=None))
            repeated = len(trained) - len({chunk for _, chunk in trained})
            parts.append(_count(len(trained), "chunk") + (f" ({repeated:,} repeated)" if repeated else ""))
        if checkpoints is not None:
            parts.append(_count(checkpoints, "checkpoint"))
        if len(self.stage_starts):
            parts.append(_count(self.metrics["stage"].nunique(), "stage"))
        return ", ".join(parts)


def extremes(y: Floats, starts: Places) -> Places:
    """Places of the first, lowest, highest and last of each group; groups begin at 0 and at `starts`."""
    starts = np.concatenate([[0], starts])
    group = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(y))))
    kept = [starts, np.append(starts[1:], len(y)) - 1]
    for extreme in (np.fmin, np.fmax):  # these pass NaN over
        found = np.flatnonzero(y == extreme.reduceat(y, starts)[group])
        kept.append(found[np.unique(group[found], return_index=True)[1]])
    return np.unique(np.concatenate(kept))


def plot_loss(
    metrics: pd.DataFrame,
    ax: Axes | None = None,
    events: pd.DataFrame | None = None,
    checkpoints: int | None = None,
) -> Axes:
    """Training loss over tokens trained (Figure 3), with a running median and the learning rate behind it.

    `metrics` has a row per step: step, tokens, loss (nats per token; NaN where it was not finite) and, if
    wanted, chunk, position, stage, spike and learning_rate; `events` are those of `read_log`.  Dashed lines part
    the stages where there are several.  Chunks that were given up are marked where that was, spikes of the loss
    (6 robust standard deviations or more, as the trainer measured them) on the line, steps without a finite
    loss on the axis; all are counted.  `checkpoints`, if given, is told in the note.
    """
    run = _run(metrics, events)
    ax = axes_or_new(ax, 7.2, 3.8)
    _loss(ax, run, drop=38)
    if "learning_rate" in metrics:
        _learning_rate_behind(ax, run)
    ax.set_xlim(run.limits)
    lift = draw_stages(ax, run.stages, named=True)
    tokens_axis(ax)
    ax.set_ylabel("training loss (nats per token)")
    return finish(ax, "Training loss", run.note(checkpoints), lift=lift)


def plot_training(
    metrics: pd.DataFrame, events: pd.DataFrame | None = None, checkpoints: int | None = None
) -> tuple[Axes, ...]:
    """What the trainer logs, over tokens trained, one above the other on a new figure; returns the Axes.

    Loss, gradient norm (log scale), learning rate, tokens per second and model FLOP utilisation; what `metrics`
    does not know is left out.  Each has a running median.  Marks, `events` and `checkpoints` are those of
    `plot_loss`.
    """
    from matplotlib import pyplot as plt

    run = _run(metrics, events)
    panels = [panel for panel in PANELS if panel.known(metrics)]
    height = 1.6 + 1.9 + 1.15 * len(panels)
    ratios = [1.8, *[1.0] * len(panels)]
    made = plt.subplots(
        len(ratios),
        sharex=True,
        squeeze=False,
        figsize=(7.2, height),
        height_ratios=ratios,
        layout="constrained",
    )
    figure, axes = made[0], tuple(made[1][:, 0])
    top, *rest = axes
    _loss(top, run, drop=8)
    top.set_ylabel("loss\n(nats per token)", fontsize=9)
    for ax, panel in zip(rest, panels, strict=True):
        panel.draw(ax, run)
        _given_up_lines(ax, run)
        draw_stages(ax, run.stages, named=False)
        tidy(ax)
    top.set_xlim(run.limits)
    lift = draw_stages(top, run.stages, named=True)
    finish(top, "Training", run.note(checkpoints), lift=lift)
    tokens_axis(axes[-1])
    figure.align_ylabels(axes)
    return axes


def _run(metrics: pd.DataFrame, events: pd.DataFrame | None) -> Run:
    check(metrics, "tokens loss", "no step has been trained yet")
    return Run(metrics, pd.DataFrame() if events is None else events)


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _loss(ax: Axes, run: Run, drop: float) -> None:
    """The loss, its running median, and what went wrong, with a legend `drop` points below."""
    loss = values(run.metrics, "loss")
    finite = np.isfinite(loss)
    shown = np.where(finite, loss, np.nan)
    smooth, width = run.smooth(shown)
    ax.plot(*run.line(shown), color=BLUE, label="each step", **(FAINT if width > 1 else STRONG))
    if width > 1:
        ax.plot(*run.line(smooth), color=BLUE, label=f"median of {width:,} steps", **STRONG)
    spikes = np.zeros(len(loss), bool)
    if "spike" in run.metrics:
        spikes = values(run.metrics, "spike") >= SPIKE
    if finite.any():
        foot = 0.1 if run.given_up.empty else 0.18  # of the room, for the marks at the foot
        ax.set_ylim(_loss_limits(loss[finite], loss[spikes & finite], foot))
    _spikes(ax, run, loss, spikes)
    _not_finite(ax, run, ~finite)
    _given_up(ax, run)
    _legend_below(ax, drop)


def _legend_below(ax: Axes, drop: float) -> None:
    """A legend `drop` points below the axes, where it hides no spike, in as many columns as there is room for."""
    labels, size = ax.get_legend_handles_labels()[1], 8.0
    widths = np.array([text_width(label, size) for label in labels])
    handle, between = 2.6 * size, 1.5 * size

    def taken(columns: int) -> float:
        return float(sum(part.max() + handle + between for part in np.array_split(widths, columns)))

    fitting = [n for n in (2, 3) if n <= len(labels) and taken(n) <= points_wide(ax)]
    below = ax.transAxes + ScaledTranslation(0, -drop / 72, ax.figure.dpi_scale_trans)
    box: dict[str, Any] = {"bbox_to_anchor": (0, 0), "bbox_transform": below, "borderaxespad": 0}
    room: dict[str, Any] = {"handlelength": 1.6, "columnspacing": 1.5, "ncols": max(fitting, default=1)}
    ax.legend(loc="upper left", fontsize=size, frameon=False, **box, **room)


def _loss_limits(loss: Floats, spikes: Floats, foot: float) -> tuple[float, float]:
    """The first steps are far above the rest; let them leave the figure rather than flatten it, and high spikes."""
    low, most = float(loss.min()), float(np.quantile(loss, 0.98))
    room = most - low
    peak = float(spikes.max(initial=most))
    high = max(most + 0.25 * room, peak + 0.1 * room if peak <= most + room else most)
    return low - foot * room - 1e-3, high + 1e-3


def _spikes(ax: Axes, run: Run, loss: Floats, spikes: NDArray[np.bool_]) -> None:
    """A triangle over each spike, at the upper edge where it leaves the figure; of neighbours over the highest."""
    if not spikes.any():
        return
    at = np.flatnonzero(spikes & np.isfinite(loss))
    column = run.columns(MARKS)[at]
    at = at[np.lexsort((-loss[at], column))]
    at = at[np.unique(run.columns(MARKS)[at], return_index=True)[1]]
    low, high = ax.get_ylim()
    height = np.minimum(loss[at], high - 0.06 * (high - low))
    label = f"spike: {SPIKE:g} robust σ or more ({_count(int(spikes.sum()), 'step')})"
    style: dict[str, Any] = {"mfc": "white", "mec": INK, "mew": 0.9, "ms": 5, "zorder": 4}
    ax.plot(run.tokens[at], height, "v", label=label, **style)


def _not_finite(ax: Axes, run: Run, steps: NDArray[np.bool_]) -> None:
    """A stroke on the axis for each step without a finite loss."""
    if not steps.any():
        return
    at = np.flatnonzero(steps)
    at = at[np.unique(run.columns(COLUMNS)[at], return_index=True)[1]]
    label = f"not finite ({_count(int(steps.sum()), 'step')})"
    foot: dict[str, Any] = {"transform": ax.get_xaxis_transform(), "label": label}
    ax.plot(run.tokens[at], np.full(len(at), 0.02), "|", color=VERMILLION, ms=9, **foot)


def _given_up(ax: Axes, run: Run) -> None:
    """A cross and a thin line at the tokens where a chunk was given up; the legend says which, or how many."""
    events = run.given_up
    if events.empty:
        return
    _given_up_lines(ax, run)
    chunks = list(dict.fromkeys(events["chunk"]))
    label = f"given up: {_count(len(chunks), 'chunk')}"
    if len(chunks) <= NAMED:
        label += f" ({', '.join(str(chunk) for chunk in chunks)})"
    if len(events) > len(chunks):
        label += f", {len(events):,} times"
    style: dict[str, Any] = {"mfc": VERMILLION, "mec": "white", "mew": 0.7, "ms": 8, "zorder": 5}
    foot: dict[str, Any] = {"transform": ax.get_xaxis_transform(), "label": label}
    ax.plot(values(events, "tokens"), np.full(len(events), 0.07), "X", **style, **foot)


def _given_up_lines(ax: Axes, run: Run) -> None:
    if not run.given_up.empty:
        verticals(ax, values(run.given_up, "tokens"), color=VERMILLION, lw=0.8, alpha=0.45)


def _learning_rate_behind(ax: Axes, run: Run) -> None:
    rate = values(run.metrics, "learning_rate")
    right = ax.twinx()
    right.plot(*run.line(rate), color=GREY, lw=1, ls=(0, (4, 2)))
    power = _from_zero(right, rate, 1.3)
    right.set_ylabel(f"learning rate, dashed{power}", color=GREY)
    right.tick_params(colors=GREY, labelsize=8)
    right.spines[["top", "left"]].set_visible(False)
    right.set_zorder(ax.get_zorder() - 1)
    ax.patch.set_visible(False)


class Panel(NamedTuple):
    """A column of the metrics as one of several figures above one another."""

    column: str
    label: str
    scale: float = 1.0
    log: bool = False
    smooth: bool = True

    def known(self, metrics: pd.DataFrame) -> bool:
        """Whether there is a number to show."""
        if self.column not in metrics:
            return False
        y = values(metrics, self.column)
        return bool((np.isfinite(y) & ((y > 0) | (not self.log))).any())

    def draw(self, ax: Axes, run: Run) -> None:
        """The column, each step and its running median, on a scale of its own."""
        y = self.scale * values(run.metrics, self.column)
        y[~np.isfinite(y) | ((y <= 0) & self.log)] = np.nan
        smooth, width = run.smooth(y)
        both = width > 1 and self.smooth
        ax.plot(*run.line(y), color=BLUE, **(FAINT if both else STRONG))
        if both:
            ax.plot(*run.line(smooth), color=BLUE, **STRONG)
        ax.set_ylabel(self.label, fontsize=9)
        if self.log:
            _log_scale(ax, y)
            return
        power = _from_zero(ax, y, 1.12)
        ax.set_ylabel(self.label + power, fontsize=9)


PANELS = (
    Panel("gradient_norm", "gradient\nnorm", log=True),
    Panel("learning_rate", "learning\nrate", smooth=False),
    Panel("tokens_per_second", "tokens\nper second"),
    Panel("mfu", "model FLOP\nutilisation (%)", scale=100),
)


def _plain(value: float, _: Any) -> str:
    return short(value) if abs(value) >= 1000 else f"{value:g}"


def _from_zero(ax: Axes, y: Floats, headroom: float) -> str:
    """Scale an axis from 0 to above the highest; small numbers are written in a power of ten, for the label."""
    highest = float(np.max(y, where=np.isfinite(y), initial=0.0)) or 1.0
    power = int(np.floor(np.log10(highest))) if highest < 0.01 else 0
    ax.set_ylim(0, headroom * highest)
    ax.yaxis.set_major_locator(MaxNLocator(4))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _plain(round(value / 10.0**power, 9), _)))
    return f" ($10^{{{power}}}$)" if power else ""


def _log_scale(ax: Axes, y: Floats) -> None:
    """Ticks at 1, 2 and 5 while they fit, at decades beyond."""
    ax.set_yscale("log")
    low, high = float(np.nanmin(y)), float(np.nanmax(y))
    ax.set_ylim(low / 1.3, high * 1.3)
    fine = high < 50 * low
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if fine else (1,), numticks=6))
    ax.yaxis.set_major_formatter(FuncFormatter(_plain))
    ax.yaxis.set_minor_formatter(NullFormatter())
