"""What is told of groups over training, a panel a domain; and gaps between groups at one checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, MaxNLocator

from analysis360.errors import Analysis360Error
from analysis360.figures.drawing import (
    BLUE,
    GREEN,
    GREY,
    INK,
    SERIES,
    SKY,
    VERMILLION,
    check,
    finish,
    masked,
    span,
    tidy,
    tokens_axis,
    values,
)
from analysis360.figures.stages import literal

WIDE, HIGH = 4.6, 3.0  # inches of a panel of lines
CELL = 0.34  # inches of a row or column of a heat map
LETTER = 0.075  # inches of a letter of a name
BAR, TITLE = 1.6, 1.4  # inches beside and above the cells
NOTE = 3.1  # inches that the lines below a title take
SMALL = 8
"""Groups up to which a heat map shares its row with others."""
FEW = (BLUE, VERMILLION, GREEN, SKY, INK)
DASHES: tuple[Any, ...] = ("-", "--", ":", "-.")
APART = 12
"""Checkpoints up to which each has a mark."""
LEVEL = 0.05
"""Of all gaps of a checkpoint, domain and metric together."""


def plot_groups(summary: pd.DataFrame, axes: Sequence[Axes] | None = None) -> tuple[Axes, ...]:
    """Draw every group of every domain over training, with 95 % bands.

    `summary` has a row per ckpt, domain and group of one metric and measure a domain: tokens (where any is missing,
    checkpoints stand in their order instead), metric, measure, value, low, high, titles, repetition and scored. A
    group whose interval is not known has no band. `axes` as many as there are domains. Raises Analysis360Error where
    there is nothing to draw.
    """
    needed = "ckpt tokens domain group metric measure value low high n titles repetition scored"
    check(summary, needed, "continue some prompts first")
    if summary.duplicated(["ckpt", "domain", "group"]).any():
        raise Analysis360Error("a group has two values at a checkpoint; choose one metric and measure")
    domains = list(dict.fromkeys(summary["domain"]))
    drawn = _grid(len(domains)) if axes is None else tuple(axes)
    if len(drawn) != len(domains):
        raise Analysis360Error(f"expected {len(domains)} Axes, one a domain, got {len(drawn)}")
    known = bool(np.isfinite(values(summary, "tokens")).all())
    place = {name: i for i, name in enumerate(dict.fromkeys(summary["ckpt"]))}
    rows = summary.assign(x=summary["tokens"] if known else summary["ckpt"].map(place))
    for ax, domain in zip(drawn, domains, strict=True):
        _groups(ax, rows[rows["domain"] == domain])
        _axis(ax, rows, place, known)
    return drawn


def _grid(count: int) -> tuple[Axes, ...]:
    """That many axes on a new figure, in two columns."""
    from matplotlib import pyplot as plt

    columns = min(count, 2)
    rows = -(-count // columns)
    made = plt.subplots(
        rows, columns, squeeze=False, figsize=((WIDE + 2.2) * columns, HIGH * rows), layout="constrained"
    )[1].ravel()
    for ax in made[count:]:
        ax.remove()
    return tuple(made[:count])


def _groups(ax: Axes, rows: pd.DataFrame) -> None:
    """Lines and bands of one domain, and a key beside them."""
    names = list(dict.fromkeys(rows["group"]))
    scale = _scale(rows)
    marked = rows["ckpt"].nunique() <= APART
    for i, name in enumerate(names):
        part = rows[rows["group"] == name].sort_values("x")
        x, y, low, high = (values(part, column) for column in ("x", "value", "low", "high"))
        colour = FEW[i] if len(names) <= len(FEW) else SERIES(i / (len(names) - 1))
        style: dict[str, Any] = {"color": colour, "ls": DASHES[i % len(DASHES)]}
        ax.plot(x, scale * y, lw=1.3, marker="o" if marked else "", ms=3, label=_spaced(name), **style)
        alpha = 0.18 if len(names) <= len(FEW) else 0.07
        ax.fill_between(x, scale * low, scale * high, color=colour, alpha=alpha, lw=0)
        if len(x) == 1:
            ax.vlines(x, scale * low, scale * high, color=colour, lw=1.1)
    metric, measure = str(rows["metric"].iloc[0]), str(rows["measure"].iloc[0])
    ax.set_ylabel(f"{_spaced(metric)}, {literal(measure)}" + (" (%)" if scale == 100 else ""))
    if scale == 1 and metric != "repetition":
        ax.axhline(0, color=GREY, lw=0.8, zorder=1)
    ax.yaxis.set_major_locator(MaxNLocator(6))
    ax.legend(
        frameon=False, fontsize=6.5, loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=2.4,
        labelspacing=0.25,
    )  # fmt: skip
    last = rows[rows["x"] == rows["x"].max()]
    repeated = f"{100 * last['repetition'].mean():.0f} % of pairs repeated at the last"
    note = f"of {_text(rows)}; titles a group: {span(rows['titles'])}; {repeated}"
    finish(ax, _spaced(str(rows["domain"].iloc[0])), note)


def _axis(ax: Axes, rows: pd.DataFrame, place: dict[str, int], known: bool) -> None:
    if known:
        tokens_axis(ax)
        places = np.unique(values(rows, "x"))
        ax.xaxis.set_major_locator(MaxNLocator(5) if len(places) > 1 else FixedLocator(places.tolist()))
        return
    ax.set_xlabel("checkpoints in order (tokens trained unknown)")
    names = list(place)
    kept = sorted(set(np.linspace(0, len(names) - 1, min(len(names), 5)).round().astype(int).tolist()))
    ax.set_xticks(kept, [literal(names[i]) for i in kept])


def _scale(rows: pd.DataFrame) -> float:
    """Shares are shown in percent, means as they are."""
    return 1.0 if (rows["measure"] == "mean").all() else 100.0


def _text(rows: pd.DataFrame) -> str:
    """What was scored."""
    scored = str(rows["scored"].iloc[0])
    return {"paper": "prompts and continuations without names", "whole": "prompts and continuations"}.get(
        scored, "continuations"
    )


def _spaced(name: str) -> str:
    return literal(name.replace("_", " "))


def plot_gaps(gaps: pd.DataFrame, axes: Sequence[Axes] | None = None) -> tuple[Axes, ...]:
    """Draw gaps between groups as a heat map a domain: the row's group less the column's.

    `gaps` has a row per domain and pair of groups at one checkpoint: metric, measure, a, b, gap, p_holm and scored. A
    dot marks a gap whose corrected p is below 0.05; a hatched cell has too few titles to tell. Raises Analysis360Error
    where there is nothing to draw, or a pair has two gaps.
    """
    check(gaps, "ckpt domain metric measure a b gap p_holm scored", "continue some prompts first")
    if gaps.duplicated(["domain", "a", "b"]).any():
        raise Analysis360Error("a pair of groups has two gaps; choose one checkpoint, metric and measure")
    domains = list(dict.fromkeys(gaps["domain"]))
    groups = [sorted({*part["a"], *part["b"]}) for _, part in gaps.groupby("domain", sort=False)]
    drawn = _squares(groups) if axes is None else tuple(axes)
    if len(drawn) != len(domains):
        raise Analysis360Error(f"expected {len(domains)} Axes, one a domain, got {len(drawn)}")
    for ax, domain in zip(drawn, domains, strict=True):
        _heat(ax, gaps[gaps["domain"] == domain])
    return drawn


def _squares(groups: Sequence[Sequence[str]]) -> tuple[Axes, ...]:
    """Axes whose cells are of one size, with room for the names of groups: small ones side by side, then large ones."""
    from matplotlib import pyplot as plt

    small = [i for i, names in enumerate(groups) if len(names) <= SMALL]
    rows = [row for row in (small, [i for i in range(len(groups)) if i not in small]) if row]
    names = [max(map(len, some)) * LETTER for some in groups]
    wide = [name + max(CELL * len(some) + BAR, NOTE) for some, name in zip(groups, names, strict=True)]
    high = [CELL * len(some) + name / 2**0.5 + TITLE for some, name in zip(groups, names, strict=True)]
    heights = [max(high[i] for i in row) for row in rows]
    width = max(sum(wide[i] for i in row) for row in rows)
    figure = plt.figure(figsize=(width, sum(heights)), layout="constrained")
    made: dict[int, Axes] = {}
    parts = figure.subfigures(len(rows), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, row in zip(parts, rows, strict=True):
        ratios = [wide[i] for i in row]
        made.update(zip(row, part.subplots(1, len(row), squeeze=False, width_ratios=ratios)[0], strict=True))
    return tuple(made[i] for i in range(len(groups)))


def _heat(ax: Axes, rows: pd.DataFrame) -> None:
    names = list(dict.fromkeys([*rows["a"], *rows["b"]]))
    place = {name: i for i, name in enumerate(names)}
    scale = _scale(rows)
    grid = np.full((len(names), len(names)), np.nan)
    for line in rows.itertuples():
        a, b, gap = place[str(line.a)], place[str(line.b)], scale * float(line.gap)  # type: ignore[arg-type]
        grid[a, b], grid[b, a] = gap, -gap
        p = float(line.p_holm)  # type: ignore[arg-type]
        for x, y in ((a, b), (b, a)):
            if np.isnan(p):
                box = matplotlib.patches.Rectangle(
                    (x - 0.5, y - 0.5), 1, 1, fill=False, hatch="////", lw=0, ec=GREY
                )
                ax.add_patch(box)
            elif p < LEVEL:
                ax.plot(x, y, "o", color=INK, ms=3)
    most = float(np.nanmax(np.abs(grid))) if np.isfinite(grid).any() else 1.0
    image = ax.imshow(masked(grid), cmap="PuOr", vmin=-(most or 1), vmax=most or 1)
    labels = [_spaced(name) for name in names]
    ax.set_yticks(range(len(names)), labels)
    ax.set_xticks(range(len(names)), labels, rotation=45, ha="right", rotation_mode="anchor")
    bar = ax.figure.colorbar(image, ax=ax, fraction=0.035, pad=0.02, panchor=(0.0, 0.5))  # cells stay left
    metric, measure = str(rows["metric"].iloc[0]), str(rows["measure"].iloc[0])
    told = [f"{_spaced(metric)}, {literal(measure)}", *(["(percentage points)"] if scale == 100 else [])]
    bar.set_label("\n".join(told), fontsize=8)
    bar.ax.tick_params(labelsize=7)
    title, ckpt = _spaced(str(rows["domain"].iloc[0])), literal(str(rows["ckpt"].iloc[0]))
    note = [f"of {_text(rows)}", "row less column; dot: corrected p < 0.05"]
    note += ["hatched: too few titles"] if rows["p_holm"].isna().any() else []
    ax.set_title(f"{title} at {ckpt}", loc="left", fontsize=11, fontweight="bold", pad=9 + 11.5 * len(note))
    where: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
    below = ax.annotate("\n".join(note), (0, 1), (0, 6), fontsize=8, color=GREY, **where)
    below.set_in_layout(False)  # `_squares` has room for it
    tidy(ax, grid=False).tick_params(labelsize=7)
