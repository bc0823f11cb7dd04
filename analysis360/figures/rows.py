"""The two ways of drawing a row per checkpoint, bars or lines and, for many checkpoints, a heat map."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import FuncFormatter

from analysis360.figures.drawing import (
    GREY,
    INK,
    LINES_IN_LEGEND,
    PALE,
    PROGRESS,
    VERMILLION,
    Floats,
    Measure,
    masked,
    thin,
    values,
)


def distribution_bars(ax: Axes, grid: Floats, scores: Floats, control: Floats | None) -> float:
    """Draw a row of bars per checkpoint, and the control as a line; returns the share in percent that fills a row."""
    drawn = grid if control is None else np.stack([grid, control])
    known = drawn[np.isfinite(drawn)]
    most = float(known.max()) if known.size and known.max() > 0 else 100.0
    width = 0.86 * (scores[1] - scores[0] if len(scores) > 1 else 1.0)
    for i, row in enumerate(np.nan_to_num(grid)):
        colours = [PROGRESS(i / max(len(grid) - 1, 1))] * (len(scores) - 1) + [VERMILLION]
        ax.bar(scores, 0.86 * np.sqrt(row / most), width, bottom=-i, color=colours)
        ax.axhline(-i, color=INK, lw=0.5)
        if control is not None:
            edges = np.append(scores - width / 1.72, scores[-1] + width / 1.72)
            height = 0.86 * np.sqrt(np.nan_to_num(control[i]) / most) - i
            ax.stairs(height, edges, baseline=-i, color=INK, lw=0.8)
    ax.set_ylim(-len(grid) + 0.95, 0.95)
    ax.set_xlim(scores[0] - width, scores[-1] + width)
    return most


def distribution_heat(ax: Axes, grid: Floats, scores: Floats) -> None:
    """A heat map of the share of sequences at each score, a row a checkpoint."""
    known = grid[np.isfinite(grid) & (grid > 0)]
    low, high = (known.min(), known.max()) if known.size else (0.1, 100.0)
    step = scores[1] - scores[0] if len(scores) > 1 else 1.0
    x = np.append(scores - step / 2, scores[-1] + step / 2)
    y = np.arange(len(grid) + 1) - 0.5
    shown = masked(np.where(grid > 0, grid, np.nan))
    norm = LogNorm(max(low, high / 1e4), max(high, low * 1.01))
    mesh = ax.pcolormesh(x, y, shown, cmap="viridis", norm=norm, rasterized=True)
    ax.set_facecolor(PALE)
    ax.invert_yaxis()
    bar = ax.figure.colorbar(mesh, ax=ax, orientation="horizontal", shrink=0.6, aspect=35, pad=0.03)
    bar.set_label("share of the checkpoint's sequences (%); grey: none", fontsize=8)
    bar.ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    bar.ax.tick_params(labelsize=8)


def chunk_lines(
    ax: Axes, table: pd.DataFrame, ends: pd.Series, held: pd.DataFrame | None, shown: Measure
) -> tuple[str, bool]:
    """A line per checkpoint over its chunk groups; what the note should say of bands, and whether lines are named."""
    column = {group: x for x, group in enumerate(ends.index)}
    parts = [(str(name), part) for name, part in table.groupby("ckpt", observed=True)]
    few = len(parts) <= LINES_IN_LEGEND
    named = few and table.loc[table["latest"], "group"].is_unique
    banded = {0, (len(parts) - 1) // 2, len(parts) - 1} if few else set()
    for i, (name, part) in enumerate(parts):
        colour = PROGRESS(i / max(len(parts) - 1, 1))
        x = part["group"].map(column).to_numpy(np.float64)
        _chunk_line(ax, x, part, colour, name if few else None, few, shown.column)
        if i in banded:
            _band(ax, x, part, colour, shown.column)
        if named:
            _name(ax, x, part, colour, name, shown.column)
    if held is not None and len(held):
        width = _column_width(len(ends))
        middle = len(ends) - 1 + 2 * width
        spread = middle + np.linspace(-0.8, 0.8, len(held)) * width if len(held) > 1 else [middle]
        colours = [PROGRESS(i / max(len(held) - 1, 1)) for i in range(len(held))]
        ax.scatter(spread, 100 * values(held, shown.column), c=colours, marker="s", s=18 if few else 7)
        ax.axvline(len(ends) - 0.5, color=GREY, lw=0.8)
    known = few and table[f"{shown.column}_low"].notna().any()
    return (
        f"; bars{f', {len(banded)} bands' if len(parts) > 3 else ' and bands'}: 95 %" if known else "",
        named,
    )


def _chunk_line(
    ax: Axes, x: Floats, part: pd.DataFrame, colour: Any, label: str | None, few: bool, column: str
) -> None:
    score, seen = 100 * values(part, column), part["seen"].to_numpy(bool)
    width = 1.6 if few else 0.7
    last = int(seen.sum()) - 1
    ax.plot(x[seen], score[seen], color=colour, lw=width, label=label, marker="o" if few else "", ms=2.5)
    ax.plot(x[max(last, 0) :], score[max(last, 0) :], color=colour, lw=width * 0.8, ls=":", alpha=0.8)
    if few:
        low, high = 100 * values(part, f"{column}_low"), 100 * values(part, f"{column}_high")
        ax.vlines(x[last : last + 1], low[last : last + 1], high[last : last + 1], color=colour, lw=1)
    at = part["latest"].to_numpy(bool)
    ax.plot(
        x[at],
        score[at],
        "o",
        color=colour,
        ms=8 if few else 3.5,
        mec="white",
        mew=1 if few else 0.3,
        zorder=4,
    )


def _band(ax: Axes, x: Floats, part: pd.DataFrame, colour: Any, column: str) -> None:
    low, high = 100 * values(part, f"{column}_low"), 100 * values(part, f"{column}_high")
    seen = part["seen"].to_numpy(bool)
    for side in (seen, ~seen):  # apart, or the step between them would be shaded as if it were uncertain
        ax.fill_between(x[side], low[side], high[side], color=colour, alpha=0.12, lw=0, zorder=0.5)


def _name(ax: Axes, x: Floats, part: pd.DataFrame, colour: Any, name: str, column: str) -> None:
    """The checkpoint's name above its disc."""
    for i in np.flatnonzero(part["latest"]):
        at = (x[i], 100 * values(part, column)[i])
        text = ax.annotate(
            name, at, (6, 5), textcoords="offset points", ha="left", fontsize=7.5, color=colour
        )
        text.set_path_effects([Stroke(linewidth=2.5, foreground="white"), Normal()])
        text.set_zorder(5)


def chunk_heat(
    ax: Axes,
    table: pd.DataFrame,
    names: list[str],
    labels: list[str],
    held: pd.DataFrame | None,
    shown: Measure,
) -> None:
    """The mean of every (checkpoint, chunk group) as a cell; the white line is the last group seen."""
    pivot = table.pivot_table(index="ckpt", columns="group", values=shown.column, observed=True, dropna=False)
    grid = 100 * pivot.loc[names].to_numpy(np.float64)
    y = np.arange(len(names) + 1) - 0.5
    style: dict[str, Any] = {"cmap": "viridis", "rasterized": True}
    style["vmin"], style["vmax"] = np.nanmin(grid), np.nanmax(grid)
    mesh = ax.pcolormesh(np.arange(grid.shape[1] + 1) - 0.5, y, masked(grid), **style)
    ax.set_facecolor("white")
    position = {group: x for x, group in enumerate(pivot.columns)}
    latest = table[table["latest"]].sort_values("ckpt")
    rows = latest["ckpt"].cat.remove_unused_categories()
    at = latest["group"].map(position).to_numpy(np.float64) + 0.5
    where = np.array([names.index(str(name)) for name in rows])
    ax.step(np.append(at[:1], at), np.append(where[:1], where + 1) - 0.5, where="post", color="white", lw=1.2)
    if held is not None and len(held):
        width = _column_width(len(labels))
        strip = held.set_index(held["ckpt"].astype(str))[shown.column].reindex(names).to_numpy(np.float64)
        start = len(labels) - 0.5 + width
        ax.pcolormesh([start, start + 2 * width], y, masked(100 * strip[:, None]), **style)
    kept = thin(len(names), 12)
    ax.set_yticks(kept, [names[i] for i in kept])
    ax.invert_yaxis()
    ax.set_ylabel("checkpoint")
    ax.figure.colorbar(mesh, ax=ax, fraction=0.045, pad=0.02).set_label(shown.label)


def _column_width(groups: int) -> int:
    """Half the width of the held-out column, in groups."""
    return max(1, -(-groups // 20))


def chunk_ticks(ax: Axes, labels: list[str], held: bool) -> None:
    """Thinned ticks under the groups, always the first and last two kinds of column."""
    seen = len(labels) - (labels[-1] == "not yet")
    kept = [int(i) for i in thin(seen, 12)]
    width = _column_width(len(labels))
    if seen < len(labels) and len(labels) > 12:
        kept = kept[:-1]  # "not yet" right beside it needs the room
    text = [labels[i] for i in kept]
    if seen < len(labels):
        kept, text = [*kept, seen], [*text, "not yet"]
    if held:
        kept, text = [*kept, len(labels) - 1 + 2 * width], [*text, "held-out"]
    ax.set_xticks(kept, text)
    ax.set_xlim(-0.5, len(labels) - 0.5 + (3 * width if held else 0))
