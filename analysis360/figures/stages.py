"""Stages of training as dashed lines with names above, for whatever is drawn over tokens trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.textpath import TextPath

from analysis360.figures.drawing import GREY, INK, Floats

NAME_ROWS = 3  # rows of stage names above the axes; names that fit into none are left out


class Stage(NamedTuple):
    """A stretch of training, in tokens trained before its first step and at its last."""

    name: str
    start: float
    end: float


def draw_stages(ax: Axes, stages: Sequence[Stage], *, named: bool) -> float:
    """Dashed lines between stages, and their names above the axes; returns the points that these take.

    The limits of x must be set: they stay as they are, and names stand over what is seen of each stage.
    """
    starts = np.array([stage.start for stage in stages[1:]])
    verticals(ax, starts, color=GREY, lw=0.9, ls="--", gid="stages")
    if not named:
        return 0.0
    (low, high), size = ax.get_xlim(), 8.0
    width = points_wide(ax)
    taken: list[float] = [-np.inf] * NAME_ROWS  # where each row is free from, in points
    for stage in stages:
        start, end = max(stage.start, low), min(stage.end, high)
        if start >= end:
            continue
        length = text_width(stage.name, size)
        middle = ((start + end) / 2 - low) / (high - low) * width
        middle = min(max(middle, length / 2), width - length / 2)
        row = next((i for i, free in enumerate(taken) if free <= middle - length / 2), None)
        if row is None:
            continue
        taken[row] = middle + length / 2 + size
        place: dict[str, Any] = {"textcoords": "offset points", "xycoords": "axes fraction"}
        above = (0, 4 + 11 * row)
        ax.annotate(
            literal(stage.name), (middle / width, 1), above, fontsize=size, color=INK, ha="center", **place
        )
    rows = sum(free > -np.inf for free in taken)
    return 11.0 * rows + 2 if rows else 0.0


def verticals(ax: Axes, places: Floats, **style: Any) -> None:
    """Lines from foot to top, as one artist that changes no limits."""
    segments = [[(place, 0.0), (place, 1.0)] for place in places]
    lines = LineCollection(segments, transform=ax.get_xaxis_transform(), zorder=0.5, **style)
    ax.add_collection(lines, autolim=False)


def literal(name: str) -> str:
    """A name from a file is never a formula."""
    return name.replace("$", r"\$")


def text_width(text: str, size: float) -> float:
    """Points that a text takes, without drawing it."""
    return float(TextPath((0, 0), literal(text), size=size).get_extents().width)


def points_wide(ax: Axes) -> float:
    """Points the axes take before the layout widens them."""
    return float(ax.get_window_extent().width * 72 / ax.figure.dpi)
