"""What figures share: colours, titles, ticks that stay legible from 1 to 360 checkpoints, safe writing."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from analysis360.errors import Analysis360Error

INK, GREY, PALE = "#222222", "#6b6b6b", "#e6e6e6"
BLUE, VERMILLION, GREEN, SKY = "#0072b2", "#d55e00", "#009e73", "#56b4e9"
# viridis without its last, pale yellow, which vanishes on white
PROGRESS = LinearSegmentedColormap.from_list(
    "progress", matplotlib.colormaps["viridis"](np.linspace(0, 0.9, 256))
)
# shades (Paul Tol's, safe for the colour-blind) and shapes for a handful of lines that lie upon one another
SERIES = LinearSegmentedColormap.from_list(
    "series", ["#882e72", "#1965b0", "#7bafde", "#4eb265", "#90c987", "#f4a736", "#e65518", "#a5170e"]
)
SHAPES = "osDvPX*h"
LINES_IN_LEGEND = 12  # more lines than this get a colour bar

Floats = NDArray[np.float64]


class Measure(NamedTuple):
    """A column that means are drawn of, as axes and titles call it."""

    column: str
    label: str
    title: str


SCORE = Measure("score_mean", "mean memorization score (%)", "Memorization")
EXTRACTIBLE = Measure("extractible_share", "extractible sequences (%)", "Extractibility")


def measure_of(table: pd.DataFrame) -> Measure:
    """What a table has to show: scores, or the extractible share where no score is known."""
    return EXTRACTIBLE if table["score_mean"].isna().all() else SCORE


def check(table: pd.DataFrame, columns: str, way_out: str = "score some checkpoints first") -> None:
    """Raise Analysis360Error when the table is empty or lacks a column."""
    missing = [name for name in columns.split() if name not in table.columns]
    if missing:
        raise Analysis360Error(f"the table lacks the columns {', '.join(missing)}")
    if table.empty:
        raise Analysis360Error(f"nothing to draw: the table is empty; {way_out}")


def axes_or_new(ax: Axes | None, width: float, height: float) -> Axes:
    """`ax`, or the Axes of a new figure of that many inches."""
    if ax is not None:
        return ax
    # pyplot rather than a bare Figure, so that a notebook shows the figure of its own accord
    from matplotlib import pyplot as plt

    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def pair_or_new(axes: Sequence[Axes] | None) -> tuple[Axes, Axes]:
    """The two axes given, or two side by side on a new figure."""
    if axes is not None:
        if len(axes) != 2:
            raise Analysis360Error(f"expected two Axes, got {len(axes)}")
        return axes[0], axes[1]
    from matplotlib import pyplot as plt

    made = plt.subplots(1, 2, figsize=(9.6, 3.9), sharey=True, layout="constrained")[1]
    return made[0], made[1]


def values(table: pd.DataFrame, name: str) -> Floats:
    """A column as float64."""
    return table[name].to_numpy(np.float64)


def masked(grid: Floats) -> Any:
    """The grid with its NaN masked, so that a heat map shows its background there."""
    masked_invalid: Any = np.ma.masked_invalid  # numpy's stubs leave it untyped
    return masked_invalid(grid)


def short(tokens: float) -> str:
    """A number of tokens in at most three digits and a unit: 3.5B, 126B, 1.26T."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(tokens) >= 0.9995 * size:
            return f"{tokens / size:.3g}{unit}"
    return f"{tokens:.3g}"


def tokens_axis(ax: Axes, label: str = "tokens trained") -> None:
    """Label the x axis in tokens, with k, M, B for thousands, millions, billions."""
    ax.set_xlabel(label)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    if ax.get_xscale() == "linear":
        ax.xaxis.set_major_locator(MaxNLocator(7))


def thin(n: int, at_most: int) -> NDArray[np.int64]:
    """Evenly spaced positions among n, at most so many, the last always among them."""
    step = -(-n // at_most) if n else 1
    return np.arange(n - 1, -1, -step)[::-1]


def span(counts: pd.Series | NDArray[np.int64]) -> str:
    """The counts' range for a note: "1,000" or "160 to 1,400"."""
    low, high = int(np.min(counts)), int(np.max(counts))
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def finish(ax: Axes, title: str, note: str, grid: bool = True, lift: float = 0) -> Axes:
    """Title, a smaller note under it, `lift` points above the axes, and an uncluttered frame."""
    ax.set_title(title, loc="left", fontsize=11, fontweight="bold", pad=20 + lift)
    place: dict[str, Any] = {
        "xycoords": "axes fraction",
        "xytext": (0, 6 + lift),
        "textcoords": "offset points",
    }
    ax.annotate(note, (0, 1), fontsize=8, color=GREY, va="bottom", **place)
    return tidy(ax, grid)


def tidy(ax: Axes, grid: bool = True) -> Axes:
    """An uncluttered frame."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)
    if grid:
        ax.grid(axis="y", color=PALE, lw=0.7)
        ax.set_axisbelow(True)
    return ax


def key_beside(ax: Axes, **more: Any) -> None:
    """A legend right of the axes, where it hides nothing."""
    where: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
    ax.legend(frameon=False, fontsize=8, title_fontsize=8, **where, **more)


def progress_key(ax: Axes, names: Sequence[str], tokens: Floats) -> None:
    """A legend of the checkpoints, or beyond twelve a colour bar with some of them."""
    if len(names) <= LINES_IN_LEGEND:
        key_beside(ax, title="checkpoint")
        return
    colours = ScalarMappable(Normalize(0, len(names) - 1), PROGRESS)
    bar = ax.figure.colorbar(colours, ax=ax, fraction=0.035, pad=0.02)
    kept = thin(len(names), 9)
    bar.set_ticks(kept.tolist(), labels=[f"{names[i]} ({short(tokens[i])})" for i in kept])
    bar.ax.tick_params(labelsize=8)
    bar.set_label("checkpoint (tokens trained)", fontsize=8)


def write_whole(path: Path, content: bytes) -> None:
    """Write aside, then rename: a reader sees the old file or the new one, never a part."""
    aside = None
    try:
        handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), 0o644)  # mkstemp gives 0600, which would hide a figure from its group
        Path(aside).replace(path)
    except OSError as error:
        if aside is not None:
            Path(aside).unlink(missing_ok=True)
        raise Analysis360Error(f"cannot write the figure {path}: {error.strerror or error}") from error
