"""Loss over training: of what had been trained on, of what had not yet, of what never was."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis360.figures.drawing import (
    BLUE,
    SERIES,
    SHAPES,
    SKY,
    VERMILLION,
    axes_or_new,
    check,
    finish,
    key_beside,
    span,
    tokens_axis,
    values,
)
from analysis360.figures.stages import Stage, draw_stages, literal

STYLES = {
    "trained text": (BLUE, "o", "-"),
    "not yet trained": (SKY, "v", "--"),
    "held-out text": (VERMILLION, "s", "-"),
}
FEW = 40  # points up to which each has a mark


def plot_losses(table: pd.DataFrame, ax: Axes | None = None, stages: Sequence[Stage] = ()) -> Axes:
    """Loss of each group over training, nats a target, with its 95 % intervals as bands.

    `table` is `summaries.losses.loss_summary(..., by=["group"])`. Where tokens trained are not known of every
    checkpoint they stand in their order. `stages` are in tokens.
    """
    check(table, "ckpt tokens group targets loss loss_low loss_high")
    ax = axes_or_new(ax, 8.0, 4.2)
    known = bool(np.isfinite(values(table, "tokens")).all())
    names = list(dict.fromkeys(table["group"].astype(str)))
    table = table.assign(x=table["tokens"] if known else pd.factorize(table["ckpt"])[0])
    for i, name in enumerate(_ordered(names)):
        part = table[table["group"].astype(str) == name].sort_values("x")
        colour, marker, line = STYLES.get(name) or (
            SERIES(i / max(len(names) - 1, 1)),
            SHAPES[i % len(SHAPES)],
            "-",
        )
        x, y = values(part, "x"), values(part, "loss")
        label = f"{literal(name)}\n({span(part['targets'])} targets)"
        marked = marker if len(part) <= FEW else ""
        ax.plot(x, y, color=colour, ls=line, lw=1.6, marker=marked, ms=4.5, label=label)
        if len(part) > 1:
            ax.fill_between(
                x, values(part, "loss_low"), values(part, "loss_high"), color=colour, alpha=0.15, lw=0
            )
        else:
            ax.vlines(x, values(part, "loss_low"), values(part, "loss_high"), color=colour, lw=1.6)
    if known:
        tokens_axis(ax)
    else:
        ax.set_xlabel("checkpoint")
        ckpts = table.drop_duplicates("x")
        ax.set_xticks(ckpts["x"], [literal(str(name)) for name in ckpts["ckpt"]])
    ax.set_ylabel("loss (nats a token)")
    key_beside(ax, labelspacing=1)
    ax.set_xlim(*ax.get_xlim())
    lift = (
        draw_stages(ax, [one for one in stages if one.start < table["x"].max()], named=True) if known else 0.0
    )
    return finish(ax, "Loss over training", "bands: 95 % intervals", lift=lift)


def _ordered(names: Sequence[str]) -> list[str]:
    """The groups of chunks in their usual order, then texts as they come."""
    return [name for name in STYLES if name in names] + [name for name in names if name not in STYLES]
