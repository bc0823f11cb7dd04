"""Benchmarks over training (Figures 4 and 6): a panel each, from one checkpoint to all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from analysis360.errors import Analysis360Error
from analysis360.figures.drawing import (
    BLUE,
    GREEN,
    GREY,
    INK,
    SERIES,
    SHAPES,
    SKY,
    VERMILLION,
    Floats,
    check,
    finish,
    key_beside,
    span,
    thin,
    tokens_axis,
    values,
)
from analysis360.figures.stages import Stage, draw_stages, literal

ORDER = ("ARC", "HellaSwag", "MMLU", "TruthfulQA", "HumanEval", "MBPP")
"""Panels in the paper's order; other benchmarks follow as they come."""
CHANCE: Mapping[str, float] = MappingProxyType({"ARC": 0.25, "HellaSwag": 0.25, "MMLU": 0.25})
"""What guessing gets, a fraction. Nearly all questions of ARC have four choices; TruthfulQA's vary in number."""
NO_FRACTION = ("perplexity", "bits_per_byte")
"""In the names of metrics that are never in percent, whatever their values."""
INTERVAL = 1.96
"""Standard errors to either side that hold 95 %."""
APART = 12
"""Checkpoints up to which each has a bar: a band would say something of what lies between them."""
MARKED = 40
"""Checkpoints up to which each has a mark."""
COLOURS = (BLUE, VERMILLION, GREEN, SKY, INK)
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
WIDE, HIGH = 3.5, 2.7  # inches of a panel

Bools = NDArray[np.bool_]


class Panel(NamedTuple):
    """What is drawn in one axes: a measure of a benchmark, for every series."""

    benchmark: str
    metric: str
    rows: pd.DataFrame

    @property
    def scale(self) -> float:
        """100 for fractions, which are shown in percent; 1 for other measures."""
        value = self.rows["value"].dropna()
        other = any(name in self.metric for name in NO_FRACTION) or not value.between(0, 1).all()
        return 1.0 if other else 100.0

    def chance(self, given: Mapping[str, float] | None) -> float:
        """What guessing gets: as given, else as the rows say, else the usual; NaN where that is not known."""
        if self.scale == 1:
            return np.nan
        if given is None and "chance" in self.rows:
            return float(self.rows["chance"].mean())
        return (CHANCE if given is None else given).get(self.benchmark, np.nan)


def plot_benchmarks(
    frame: pd.DataFrame,
    axes: Sequence[Axes] | None = None,
    stages: Sequence[Stage] = (),
    chance: Mapping[str, float] | None = None,
) -> tuple[Axes, ...]:
    """Draw each benchmark over training, with 95 % intervals, what chance gets, and stages as dashed lines.

    `frame` has a row per series, ckpt, benchmark and metric: tokens (trained on at the checkpoint; where
    any is missing, checkpoints stand in their order instead, and the axis says so), value and stderr
    (fractions, drawn in percent; other measures, such as perplexity, as they are; a missing value is a gap,
    a missing error has no interval) and n (questions). A panel shows one metric of one benchmark, in the
    paper's order, on `axes` if given, as many as there are panels. `stages` are in tokens. `chance`, a
    fraction by benchmark, is a dotted line; if left out, the frame's column of that name, or 25 % for the
    benchmarks of four choices. Raises Analysis360Error where
    there is nothing to draw, or a checkpoint has two values.
    """
    check(frame, "series ckpt tokens benchmark metric value stderr n", "evaluate some checkpoints first")
    panels = _panels(frame)
    made = axes is None
    drawn = _grid(len(panels)) if axes is None else tuple(axes)
    if len(drawn) != len(panels):
        raise Analysis360Error(f"expected {len(panels)} Axes, one a benchmark and metric, got {len(drawn)}")
    known = bool(np.isfinite(values(frame, "tokens")).all())
    styles = _styles(list(dict.fromkeys(frame["series"].astype(str))))
    x = np.concatenate([values(panel.rows, "x") for panel in panels])
    begun = [stage for stage in stages if stage.start < x.max()] if known else []
    for ax, panel in zip(drawn, panels, strict=True):
        ax.set_xlim(_limits(x))
        note = _series(ax, panel, styles)
        _chance(ax, panel.chance(chance))
        lift = draw_stages(ax, begun, named=True)
        _axis(ax, panel.rows, known, bool(stages))
        ax.set_ylabel(literal(panel.metric) + (" (%)" if panel.scale == 100 else ""))
        finish(ax, literal(panel.benchmark), note, lift=lift)
    if len(styles) > 1:
        _key(drawn, made)
    return drawn


def _panels(frame: pd.DataFrame) -> list[Panel]:
    """A panel per benchmark and metric; rows gain `x`, where they stand on the axis."""
    key = ["series", "ckpt", "benchmark", "metric"]
    texts = frame[key].astype(str)
    twice = texts[texts.duplicated()]
    if len(twice):
        raise Analysis360Error(f"{', '.join(twice.iloc[0])}: two values; choose one of their settings")
    if not np.isfinite(values(frame, "value")).any():
        raise Analysis360Error("nothing to draw: no checkpoint has a value")
    named = (texts["metric"] != "") | frame["value"].notna()  # what was never asked has no metric
    rows = frame.assign(
        **{name: texts[name] for name in ("series", "benchmark", "metric")}, x=_places(frame)
    )[named]
    found = {pair: part.sort_values("x") for pair, part in rows.groupby(["benchmark", "metric"], sort=False)}
    rank = {name: i for i, name in enumerate(ORDER)}
    # sorted() keeps the order of appearance among equals
    pairs = sorted(found, key=lambda pair: rank.get(str(pair[0]), len(ORDER)))
    return [Panel(str(benchmark), str(metric), found[benchmark, metric]) for benchmark, metric in pairs]


def _places(frame: pd.DataFrame) -> Floats:
    """Tokens in each row; where any is missing the checkpoint's place, in its order or as it first appears."""
    tokens = values(frame, "tokens")
    if np.isfinite(tokens).all():
        return tokens
    ckpt = frame["ckpt"]
    if isinstance(ckpt.dtype, pd.CategoricalDtype):
        ckpt = ckpt.cat.remove_unused_categories().cat.codes
    places = ckpt.groupby(frame["series"].astype(str), sort=False).transform(
        lambda part: pd.factorize(part, sort=part.dtype.kind == "i")[0]
    )
    return places.to_numpy(np.float64)


def _grid(count: int) -> tuple[Axes, ...]:
    """That many axes on a new figure, in rows of two, beyond four of three."""
    from matplotlib import pyplot as plt

    columns = min(count, 2 if count <= 4 else 3)
    rows = -(-count // columns)
    size = (WIDE * columns + (2.0 if count == 1 else 0), HIGH * rows + (0.6 if count == 1 else 0))
    made = plt.subplots(rows, columns, squeeze=False, figsize=size, layout="constrained")[1].ravel()
    for ax in made[count:]:
        ax.remove()
    return tuple(made[:count])


def _styles(series: list[str]) -> dict[str, dict[str, Any]]:
    """Colour, dashes and mark of each series."""
    few = len(series) <= len(COLOURS)
    return {
        name: {
            "color": COLOURS[i] if few else SERIES(i / (len(series) - 1)),
            "ls": DASHES[i % len(DASHES)],
            "marker": SHAPES[i % len(SHAPES)],
            "label": literal(name),
        }
        for i, name in enumerate(series)
    }


def _limits(x: Floats) -> tuple[float, float]:
    """From the first to the last checkpoint, and room for marks on the edge."""
    low, high = float(x.min()), float(x.max())
    room = 0.03 * (high - low) or 0.5 * abs(high) or 1.0
    return low - room, high + room


def _series(ax: Axes, panel: Panel, styles: Mapping[str, Mapping[str, Any]]) -> str:
    """Every series with its intervals; returns the note that says what they are and of how many questions."""
    rows, scale = panel.rows, panel.scale
    ends = (0, 100) if scale == 100 else (-np.inf, np.inf)
    apart = rows.groupby("series").size().max() <= APART
    intervals = False
    for name, style in styles.items():
        part = rows[rows["series"] == name]
        x, y = values(part, "x"), scale * values(part, "value")
        margin = scale * INTERVAL * values(part, "stderr")
        lone = _lone(np.isfinite(y))
        barred = np.isfinite(y + margin) & (lone | apart)
        low, high = np.clip(y - margin, *ends), np.clip(y + margin, *ends)
        marked = len(part) <= MARKED
        line = {**style, "marker": style["marker"] if marked else ""}
        ax.plot(x, y, lw=1.6 if marked else 1.0, ms=4.5, **line)
        if not marked:  # what has no neighbour has no line either
            ax.plot(x[lone], y[lone], style["marker"], color=style["color"], ms=3)
        ax.vlines(x[barred], low[barred], high[barred], color=style["color"], lw=1.1)
        if not apart:
            ax.fill_between(x, low, high, color=style["color"], alpha=0.2, lw=0)
        intervals |= bool(np.isfinite(y + margin).any())
    counts = rows.loc[rows["value"].notna(), "n"].dropna()
    said = [f"n = {span(counts.astype(int))}"] if len(counts) else []
    said += [f"{'bars' if apart else 'band'}: 95 %"] if intervals else []
    return "; ".join(said) if rows["value"].notna().any() else "no checkpoint has a value"


def _lone(finite: Bools) -> Bools:
    """[n] whether one is finite and neither the one before it nor the one after is."""
    padded = np.pad(finite, 1)
    lone: Bools = finite & ~padded[:-2] & ~padded[2:]
    return lone


def _chance(ax: Axes, share: float) -> None:
    """A dotted line, named right of the axes, where it covers no data."""
    if np.isnan(share):
        return
    ax.axhline(100 * share, color=GREY, lw=1, ls=":", zorder=1)
    place: dict[str, Any] = {"xycoords": ax.get_yaxis_transform(), "textcoords": "offset points"}
    label = f"chance\n{100 * share:.3g} %"
    ax.annotate(label, (1, 100 * share), (3, 0), va="center", fontsize=7, color=GREY, **place)


def _axis(ax: Axes, rows: pd.DataFrame, known: bool, staged: bool) -> None:
    """Ticks and what they count; without tokens, checkpoints."""
    ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    if rows["value"].isna().all():
        ax.set_ylim(0, 100)
    if known:
        tokens_axis(ax)
        places = np.unique(values(rows, "x"))
        ax.xaxis.set_major_locator(MaxNLocator(5) if len(places) > 1 else FixedLocator(places.tolist()))
        return
    why = "tokens trained unknown" + (", so no stages" if staged else "")
    ax.set_xlabel(f"checkpoints in order\n({why})")
    if rows["series"].nunique() > 1:
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda place, _: f"{place:.0f}"))
        return
    kept = rows.iloc[thin(len(rows), 4)]
    ax.set_xticks(values(kept, "x").tolist(), [literal(str(name)) for name in kept["ckpt"]])


def _key(axes: tuple[Axes, ...], made: bool) -> None:
    """Which series is which: under a figure of our own, else beside the last axes."""
    if not made:
        key_beside(axes[-1])
        return
    handles, labels = axes[0].get_legend_handles_labels()
    figure = axes[0].get_figure(root=True)
    assert figure is not None
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(len(labels), 4), frameon=False, fontsize=8
    )
