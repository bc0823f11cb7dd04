"""Tables in, matplotlib Axes out: the figures of the paper's sections 4.1.4, 4.2 and 4.3, and their controls.

The tables are those of `summaries` (and the trainer's metrics).  They hold fractions; figures show percent,
and say so.  Every function draws on `ax` if given, else on a new figure, and returns the Axes.  Nothing
calls `show`.  Colours run with training progress along viridis, or are Okabe and Ito's, safe for the
colour-blind. An empty table raises Analysis360Error.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from analysis360.errors import Analysis360Error
from analysis360.figures.drawing import (
    BLUE,
    GREEN,
    GREY,
    INK,
    LINES_IN_LEGEND,
    PALE,
    SERIES,
    SHAPES,
    SKY,
    VERMILLION,
    axes_or_new,
    check,
    finish,
    key_beside,
    masked,
    measure_of,
    pair_or_new,
    progress_key,
    short,
    span,
    thin,
    tokens_axis,
    values,
    write_whole,
)
from analysis360.figures.evaluations import plot_benchmarks
from analysis360.figures.rows import (
    chunk_heat,
    chunk_lines,
    chunk_ticks,
    distribution_bars,
    distribution_heat,
)
from analysis360.figures.stages import Stage
from analysis360.figures.training import plot_loss, plot_training
from analysis360.summaries import Correlations

__all__ = [
    "Stage",
    "plot_benchmarks",
    "plot_canaries",
    "plot_chunks",
    "plot_correlation",
    "plot_distribution",
    "plot_exposure",
    "plot_loss",
    "plot_summary",
    "plot_training",
    "save",
]

GROUP_STYLES = {
    "trained text": (BLUE, "o", "-"),
    "not yet trained": (SKY, "v", "--"),
    "held-out text": (VERMILLION, "s", "-"),
    "canaries": (GREEN, "^", "-"),
    "never planted": (GREY, "x", "--"),
}
VISIBLE = 2.0  # of 100 %, the height of a band that can be seen beside lines
ROWS_AS_BARS, ROWS_AS_LINES = 20, 40  # more checkpoints than this become a heat map


def plot_distribution(
    table: pd.DataFrame, ax: Axes | None = None, held_out: pd.DataFrame | None = None
) -> Axes:
    """Distribution of memorization scores, a row per checkpoint, the share at score 1 written in (Figure 7).

    `table` is `summaries.distribution(...)`.  Bars are as high as the square root of the share, so that the
    bulk and the spike at 1 both show; beyond 20 checkpoints the rows become a heat map of the share, log
    scale.  `held_out`, the same table over held-out text, is drawn as an outline over the bars.
    """
    check(table, "ckpt score share n extractible_share")
    shares = _shares(table)
    facts = table.drop_duplicates("ckpt").set_index("ckpt").loc[shares.index]
    names, grid = [str(name) for name in shares.index], shares.to_numpy(np.float64) * 100
    scores = shares.columns.to_numpy(np.float64)
    notes = [
        f"{100 * share:.2f} %   n = {n:,}" if n else "n = 0"
        for share, n in zip(values(facts, "extractible_share"), facts["n"].astype(int), strict=True)
    ]
    if len(names) > ROWS_AS_BARS:
        ax = axes_or_new(ax, 7.2, 6.5)
        distribution_heat(ax, grid, scores)
        kept = thin(len(names), 18)
        ax.set_yticks(kept, [names[i] for i in kept])
        note = "each row is a checkpoint and sums to 100 %"
    else:
        ax = axes_or_new(ax, 7.2, 1.3 + 0.5 * len(names))
        kept = np.arange(len(names))
        control = (
            None if held_out is None else _shares(held_out).reindex(shares.index).to_numpy(np.float64) * 100
        )
        full = distribution_bars(ax, grid, scores, control)
        note = f"bar height: square root of the share; a full row is {full:.0f} %"
        note += "" if held_out is None else f"; line: held-out text (n = {span(held_out['n'].unique())})"
        ax.set_yticks(-kept + 0.3, names)
    for i in kept:
        y = i if len(names) > ROWS_AS_BARS else 0.3 - i
        right = ax.get_yaxis_transform()
        ax.text(1.02, y, notes[i], transform=right, va="center", fontsize=8, color=VERMILLION)
    ax.text(1.02, 1.0, "at score 1", transform=ax.transAxes, va="bottom", fontsize=8, color=VERMILLION)
    ax.set_xlabel("memorization score (share of continuation tokens right)")
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    return finish(ax, "Memorization scores of text trained on", note, grid=False)


def _shares(table: pd.DataFrame) -> pd.DataFrame:
    """[checkpoints, scores] share of the sequences."""
    return table.pivot_table(index="ckpt", columns="score", values="share", observed=True, dropna=False)


def plot_chunks(table: pd.DataFrame, ax: Axes | None = None, held_out: pd.DataFrame | None = None) -> Axes:
    """Mean memorization score of each checkpoint on chunks in the order they were trained on (Figure 8).

    The extractible share where the table has no scores.

    `table` is `summaries.chunk_groups(...)`.  A disc marks each checkpoint's last seen group; what lies right
    of it, dotted, it had not been trained on.  Up to 12 checkpoints have 95 % intervals: bars at their discs,
    and bands for the first, middle and last.  Beyond 40 checkpoints the lines become rows of a heat map.
    `held_out`, if given, is `summaries.summary(...)`, whose held-out text is drawn in a column of its own.
    Raises Analysis360Error where all is 0.
    """
    check(table, "ckpt tokens group group_tokens score_mean seen latest")
    shown = measure_of(table)
    if not table[shown.column].any():
        raise Analysis360Error(f"{shown.label}: 0 for every checkpoint and chunk")
    ax = axes_or_new(ax, 7.6, 4.6)
    names = [str(name) for name in table["ckpt"].cat.remove_unused_categories().cat.categories]
    ends = table.drop_duplicates("group").set_index("group")["group_tokens"].sort_index()
    labels = ["not yet" if np.isnan(end) else short(float(end)) for end in ends]
    n = table.groupby("ckpt", observed=True)["sequences"].sum()
    held = None if held_out is None else held_out[held_out["group"] == "held-out text"]
    if len(names) > ROWS_AS_LINES:
        chunk_heat(ax, table, names, labels, held, shown)
        note = f"white line: latest text seen; right of it not yet seen; {span(n)} sequences a row"
    else:
        bands, named = chunk_lines(ax, table, ends, held, shown)
        tokens = table.drop_duplicates("ckpt").sort_values("ckpt")["tokens"].to_numpy(np.float64)
        if not named:
            progress_key(ax, names, tokens)
        note = f"disc: latest text seen; dotted: not yet seen; {span(n)} sequences a checkpoint{bands}"
        if labels[-1] == "not yet":
            ax.axvspan(len(labels) - 1.5, len(labels) - 0.5, color=PALE, alpha=0.5, lw=0, zorder=0)
        ax.set_ylabel(shown.label)
    chunk_ticks(ax, labels, held is not None)
    ax.set_xlabel("chunks, by tokens trained when first trained on")
    return finish(ax, f"{shown.title} by when the text was seen", note, grid=len(names) <= ROWS_AS_LINES)


WHOSE = {"seen": "trained on by both", "all": "trained on or not", "held-out": "never trained on"}


def plot_correlation(
    correlations: Correlations, ax: Axes | None = None, held_out: Correlations | None = None
) -> Axes:
    """Correlation of sequences between checkpoints as a heat map (Figure 9); numbers in up to 12 x 12 cells.

    `correlations` is `summaries.correlations(...)`.  With `held_out`, the same over held-out text, cells above
    the diagonal show that control instead.  Cells without a value (too few sequences, or no variation) are
    grey; where no cell has one, Analysis360Error says why.
    """
    r, names = correlations.r.to_numpy(np.float64), [str(name) for name in correlations.r.index]
    if not names:
        raise Analysis360Error("nothing to draw: no checkpoint in the correlations")
    if held_out is not None:
        r = np.where(np.triu(np.ones(r.shape, bool), 1), held_out.r.to_numpy(np.float64), r)
    if not np.isfinite(r).any():
        what = (
            "scores do not vary"
            if correlations.value == "score"
            else "no sequence is extractible, or each is"
        )
        raise Analysis360Error(f"undefined between every two checkpoints: {what}, or too few are shared")
    side = min(max(5.6, 1.8 + 0.55 * len(names)), 7.5)  # narrower, the note leaves no room for the map
    ax = axes_or_new(ax, side + 0.9, side)
    norm = Normalize(min(np.floor(10 * np.nanmin(r)) / 10, 0.9), 1)
    image = ax.imshow(masked(r), cmap="viridis", norm=norm, interpolation="nearest")
    ax.set_facecolor(PALE)
    kept = thin(len(names), 12)
    ax.set_xticks(kept, [names[i] for i in kept], rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(kept, [names[i] for i in kept])
    if len(names) <= LINES_IN_LEGEND:
        for i, j in np.argwhere(np.isfinite(r)):
            colour = "white" if norm(r[i, j]) < 0.6 else INK
            ax.text(j, i, f"{r[i, j]:.2f}", ha="center", va="center", fontsize=8, color=colour)
    ax.set_xlabel("checkpoint")
    ax.set_ylabel("checkpoint")
    score = correlations.value == "score"
    bar = ax.figure.colorbar(image, ax=ax, fraction=0.045, pad=0.03)
    bar.set_label("Pearson's r" if score else "phi (Pearson's r of 0 and 1)")
    n = correlations.n.to_numpy()
    note = f"{span(n)} sequences a cell, {WHOSE[correlations.over]}"
    if held_out is not None:
        note += f"; above the diagonal {span(held_out.n.to_numpy())} of held-out text"
    finish(ax, f"Correlation of {'memorization scores' if score else 'extractibility'}", note, grid=False)
    ax.spines[:].set_visible(False)
    return ax


def plot_canaries(
    curves: pd.DataFrame, control: pd.DataFrame | None = None, axes: Sequence[Axes] | None = None
) -> tuple[Axes, Axes]:
    """Recall of canaries over training, planted evenly (left) or in one chunk (right), by times planted.

    `curves` is `summaries.canary_curves(...)`; canaries never planted are dashed grey in both panels.
    The extractible share where there are no scores.  Triangles at the foot mark the first planting.
    `control`, if given, is `summaries.control_check(...)`: the share of tokens that chance alone explains is
    shaded, or written where it is too thin to see, and checkpoints outside it are ringed.
    """
    check(curves, "tokens repeats spacing score_mean sequences planted_first_tokens")
    left, right = pair_or_new(axes)
    shown = measure_of(curves)
    counts = sorted(curves.loc[curves["repeats"] > 0, "repeats"].unique())
    several = False
    for ax, spacing, title in (
        (left, "even", "Canaries planted evenly"),
        (right, "chunk", "Canaries planted in one chunk"),
    ):
        panel = curves[curves["spacing"] == spacing]
        for i, repeats in enumerate(counts):
            part = panel[panel["repeats"] == repeats].sort_values("tokens")
            if part.empty:
                continue
            style: dict[str, Any] = {"color": _shade(i, counts), "lw": 1.6, "ms": 4.5}
            style["marker"] = SHAPES[i % len(SHAPES)] if len(part) <= 40 else ""
            x, y = values(part, "tokens"), 100 * values(part, shown.column)
            ax.plot(x, y, label=f"{repeats:g} ×", **style)
        several |= _plantings(ax, panel, counts)
        _never_planted(ax, curves[curves["repeats"] == 0], control, shown.column)
        ax.set_ylim(-3, 103)
        tokens_axis(ax)
        n = panel["sequences"]
        finish(ax, title, f"{span(n)} canaries a line" if len(n) else "none in this frame")
    left.set_ylabel(shown.label)
    right.tick_params(labelleft=False)
    ends = np.array([left.get_xlim(), right.get_xlim()])
    for ax in (left, right):  # side by side they are compared
        ax.set_xlim(ends[:, 0].min(), ends[:, 1].max())
    first = "first planted" + ("\n(black: several kinds)" if several else "")
    right.plot([], [], "^", color=GREY, ms=7, label=first)
    keys = dict(
        both for ax in (left, right) for both in zip(*ax.get_legend_handles_labels()[::-1], strict=True)
    )
    key_beside(right, title="planted", handles=list(keys.values()), labels=list(keys))
    return left, right


def _shade(i: int, counts: list[float]) -> Any:
    return SERIES(i / max(len(counts) - 1, 1))


def _plantings(ax: Axes, panel: pd.DataFrame, counts: list[float]) -> bool:
    """A triangle at the foot where each kind of canary is planted first; black, and True, where several kinds are."""
    first = (
        panel[panel["repeats"] > 0].drop_duplicates("repeats").set_index("repeats")["planted_first_tokens"]
    )
    places = first.dropna().groupby(first)
    for place, group in places:
        colour = INK if len(group) > 1 else _shade(counts.index(group.index[0]), counts)
        foot = ax.get_xaxis_transform()
        ax.plot(place, 0, "^", color=colour, ms=7, transform=foot, clip_on=False, zorder=5)
        if len(first) > 1 and first.nunique() == 1:
            ax.axvline(place, color=GREY, lw=0.8, ls=":", zorder=0)
    return bool((places.size() > 1).any())


def _never_planted(ax: Axes, never: pd.DataFrame, control: pd.DataFrame | None, column: str) -> None:
    chance = "" if control is None or control.empty else _chance(ax, control)
    if len(never):
        part = never.sort_values("tokens")
        label = f"never (n = {int(part['sequences'].max()):,}){chance}"
        style: dict[str, Any] = {"color": GREY, "lw": 1.4, "ls": "--", "label": label}
        ax.plot(values(part, "tokens"), 100 * values(part, column), **style)


def _chance(ax: Axes, control: pd.DataFrame) -> str:
    """Shade what chance explains and ring what it does not; what to write where the shade would be too thin to see."""
    x, n_tokens = values(control, "tokens"), values(control, "tokens_scored")
    low, high = (100 * values(control, name) / n_tokens for name in ("hits_low", "hits_high"))
    level, visible = f"chance ({100 * control['level'].iloc[0]:g} %)", high.max() > VISIBLE
    if visible:
        ax.fill_between(x, low, high, color=GREY, alpha=0.25, lw=0, label=level)
    out = ~control["inside"].to_numpy(bool)
    if out.any():
        hits = 100 * values(control, "hits") / n_tokens
        ring: dict[str, Any] = {"mfc": "none", "mec": VERMILLION, "ms": 8, "label": "beyond chance"}
        ax.plot(x[out], hits[out], "o", **ring)
    return "" if visible else f"\n{level}: up to {high.max():.2g} %"


def plot_exposure(profile: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Score of trained text above untrained text, by tokens trained since its last exposure, 95 % intervals.

    `profile` is `summaries.exposure_profile(...)`; differences are in percentage points.  Each mark stands
    at the mean of its bin; the horizontal line is the bin.
    """
    check(profile, "baseline tokens_since_low tokens_since_high tokens_since_mean score_difference")
    ax = axes_or_new(ax, 7.8, 4.0)
    baselines = profile.groupby("baseline", sort=False)
    for shift, (baseline, part) in zip((-2.5, 2.5), baselines, strict=False):
        colour, marker, _ = GROUP_STYLES[str(baseline)]
        # the baselines share their bins: side by side, so that neither hides the other
        aside = ScaledTranslation(shift / 72, 0, ax.figure.dpi_scale_trans)
        x, y = values(part, "tokens_since_mean"), 100 * values(part, "score_difference")
        low, high = (100 * values(part, f"score_difference_{side}") for side in ("low", "high"))
        ax.hlines(y, part["tokens_since_low"], part["tokens_since_high"], color=colour, lw=1, alpha=0.5)
        ax.vlines(x, low, high, color=colour, lw=1.6, transform=ax.transData + aside)
        ax.plot(x, y, marker, color=colour, ms=6, label=f"minus {baseline}", transform=ax.transData + aside)
    ax.axhline(0, color=INK, lw=0.8)
    _exposure_scale(ax, profile)
    tokens_axis(ax, "tokens trained since the text was last seen")
    ax.set_ylabel("score above untrained text\n(percentage points)")
    key_beside(ax)
    n = profile.groupby("baseline", sort=False)["observations"].sum()
    note = f"{span(n)} sequence x checkpoint pairs; bars: 95 % over chunks"
    return finish(ax, "What having seen the text adds", note)


def _exposure_scale(ax: Axes, profile: pd.DataFrame) -> None:
    """Logarithmic beyond the first bin's mean where the bins span decades, and always from 0."""
    means, far = values(profile, "tokens_since_mean"), float(profile["tokens_since_high"].max())
    near = float(means[means > 0].min(initial=far))
    if far > 30 * near > 0:
        ax.set_xscale("symlog", linthresh=near)
        decades = 10.0 ** np.arange(np.floor(np.log10(near)), np.ceil(np.log10(far)) + 1)
        ticks = [float(t) for t in np.outer(decades, [1, 3]).ravel() if near <= t <= far]
        ax.set_xticks([0.0, *ticks])
        ax.minorticks_off()
    # intervals are drawn aside of the data's place, which leaves them out of the automatic limits
    low, high = profile["score_difference_low"], profile["score_difference_high"]
    ends = 100 * np.array([low.min(), high.max(), profile["score_difference"].min(), 0.0])
    bottom, top = np.nanmin(ends), max(np.nanmax(ends), 100 * profile["score_difference"].max())
    ax.set_ylim(bottom - 0.08 * (top - bottom) - 1e-3, top + 0.12 * (top - bottom) + 1e-3)
    ax.set_xlim(0 if near < far else None, far * 1.05 if far > 0 else None)


def plot_summary(summary: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Mean memorization score of trained, untrained and held-out text and of canaries over training.

    `summary` is `summaries.summary(...)`; bands are its 95 % intervals.  The extractible share where it has no
    scores.
    """
    check(summary, "tokens group sequences score_mean score_mean_low score_mean_high")
    ax, shown = axes_or_new(ax, 8.0, 4.2), measure_of(summary)
    for group, (colour, marker, line) in GROUP_STYLES.items():
        part = summary[summary["group"] == group].sort_values("tokens")
        if part.empty:
            continue
        x, y = values(part, "tokens"), 100 * values(part, shown.column)
        low, high = (100 * values(part, f"{shown.column}_{side}") for side in ("low", "high"))
        label = f"{group}\n(n = {span(part['sequences'])})"
        few = len(part) <= 40
        ax.plot(x, y, color=colour, ls=line, lw=1.6, marker=marker if few else "", ms=4.5, label=label)
        if group != "never planted":  # what chance allows there is `control_check`'s to say
            ax.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
    tokens_axis(ax)
    ax.set_ylabel(shown.label)
    key_beside(ax, labelspacing=1)
    return finish(ax, f"{shown.title} over training", "bands: 95 % intervals; n: sequences a checkpoint")


def save(fig: Figure, path_without_suffix: str | Path) -> tuple[Path, Path]:
    """Write PNG (200 dpi) and PDF; the same figure gives the same bytes, for neither holds a time.

    Each is written aside and renamed, so a file that exists is complete.  Returns the two paths.
    Raises Analysis360Error if the folder cannot be written.
    """
    base = Path(path_without_suffix)
    metadata: dict[str, dict[str, Any]] = {
        "png": {"Software": None},
        "pdf": {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": None},
    }
    paths = []
    for kind, entries in metadata.items():
        buffer = io.BytesIO()
        with matplotlib.rc_context({"pdf.fonttype": 42}):  # outlines that editors can select as text
            fig.savefig(buffer, format=kind, dpi=200, bbox_inches="tight", metadata=entries)
        path = base.with_name(f"{base.name}.{kind}")
        write_whole(path, buffer.getvalue())
        paths.append(path)
    return paths[0], paths[1]
