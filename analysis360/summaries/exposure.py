"""What having been trained on a text adds to its score, by how long ago that was."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis360 import statistics
from analysis360.errors import Analysis360Error
from analysis360.statistics import Interval
from analysis360.summaries.columns import Bools, Floats, Ints
from analysis360.summaries.grid import GROUPS, Grid
from analysis360.summaries.measures import RESAMPLES, bounds_of

COLUMNS = (
    "baseline tokens_since_low tokens_since_high tokens_since_mean score_difference score_difference_low "
    "score_difference_high observations chunks checkpoints"
)


def exposure_profile(grid: Grid, bins: int | Sequence[float] = 8) -> pd.DataFrame:
    """How much better trained text is recalled than untrained text, by tokens trained on since last exposure.

    At each checkpoint the mean score of a baseline is taken off that of trained sequences; the differences
    (fractions of tokens) are pooled over checkpoints in bins of `tokens_since`: ascending edges in tokens,
    or a number of about equally filled bins.  The baselines are train chunks not yet trained on, and
    held-out text, both at the same checkpoint; a checkpoint without one does not count.  Intervals resample
    whole chunks, those of the baseline too (a baseline of one chunk counts as exact). Columns: baseline,
    tokens_since_low, tokens_since_high (the bin), tokens_since_mean, score_difference (with _low, _high),
    observations (sequence x checkpoint pairs), chunks, checkpoints. Raises Analysis360Error on bins that do
    not ascend.
    """
    grid.need_scores("exposure profile")
    edges = _edges(grid, bins)
    trained, since = _by_bin(grid, edges)
    baselines = {name: _totals(grid, name) for name in GROUPS[1:3]}
    rows = []
    for b in range(len(edges) - 1):
        sums, counts = trained[b]
        for name, (base_sums, base_counts) in baselines.items():
            usable = (counts.sum(axis=1) > 0) & (base_counts.sum(axis=1) > 0)
            if usable.any():
                gain = _gain(sums[usable], counts[usable], base_sums[usable], base_counts[usable])
                rows.append(
                    {
                        "baseline": name,
                        "tokens_since_low": edges[b],
                        "tokens_since_high": edges[b + 1],
                        "tokens_since_mean": since[b, usable].sum() / counts[usable].sum(),
                        **bounds_of("score_difference", gain),
                        "observations": gain.n,
                        "chunks": int((counts[usable].sum(axis=0) > 0).sum()),
                        "checkpoints": int(usable.sum()),
                    }
                )
    return pd.DataFrame(rows, columns=COLUMNS.split())


def _trained(grid: Grid, k: int) -> tuple[Ints, Floats]:
    """(places, tokens since the last exposure) of checkpoint k's scored trained sequences, where known."""
    since = np.asarray(grid.since(k), np.float64)
    kept = grid.spread(grid.members(GROUPS[0])[k]) & (grid.right[k] != grid.gap) & ~np.isnan(since)
    return np.flatnonzero(kept), since[kept]


def _edges(grid: Grid, bins: int | Sequence[float]) -> Floats:
    """Bin edges over tokens since the last exposure."""
    if not isinstance(bins, int):
        given = np.asarray(bins, np.float64)
        if len(given) < 2 or not (np.diff(given) > 0).all():
            raise Analysis360Error(f"bins must be at least two ascending edges in tokens, got {list(bins)}")
        return given
    if bins < 1:
        raise Analysis360Error(f"bins must be at least 1, got {bins}")
    values, counts = np.zeros(0), np.zeros(0, np.int64)
    for k in range(len(grid.ckpts)):
        # many sequences share a value, and the values of one checkpoint come again at others
        at, how_many = np.unique(_trained(grid, k)[1], return_counts=True)
        values, place = np.unique(np.concatenate([values, at]), return_inverse=True)
        counts = np.bincount(place, np.concatenate([counts, how_many])).astype(np.int64)
    if not len(values):
        return np.array([0.0])
    edges = np.unique(_quantiles(values, counts, np.linspace(0, 1, bins + 1)))
    return edges if len(edges) > 1 else np.repeat(edges, 2)


def _quantiles(values: Floats, counts: Ints, at: Floats) -> Floats:
    """`numpy.quantile` of ascending values that occur so often."""
    ends = np.cumsum(counts)
    exact = at * (ends[-1] - 1)
    below = np.floor(exact).astype(np.int64)
    above = np.minimum(below + 1, ends[-1] - 1)
    low, high = (values[np.searchsorted(ends, place, side="right")] for place in (below, above))
    return np.asarray(low + (high - low) * (exact - below), np.float64)


def _by_bin(grid: Grid, edges: Floats) -> tuple[list[tuple[Floats, Floats]], Floats]:
    """(sums of scores, counts) of trained sequences in each bin, [checkpoints, chunks]; tokens since their
    last exposure, summed, [bins, checkpoints]."""
    chunks, bins = len(grid.chunks), len(edges) - 1
    chunk_of = grid.spread(grid.chunk_of)
    sums, counts = np.zeros((2, bins, len(grid.ckpts), chunks))
    total = np.zeros((bins, len(grid.ckpts)))
    for k in range(len(grid.ckpts)) if bins else ():
        places, since = _trained(grid, k)
        bin_of = np.where(since == edges[-1], bins - 1, np.searchsorted(edges, since, side="right") - 1)
        inside = (bin_of >= 0) & (bin_of < bins)
        places, since, bin_of = places[inside], since[inside], bin_of[inside]
        cell = bin_of * chunks + chunk_of[places]
        counts[:, k] = np.bincount(cell, minlength=bins * chunks).reshape(bins, chunks)
        right = np.bincount(cell, grid.right[k, places], minlength=bins * chunks)
        sums[:, k] = right.reshape(bins, chunks) / grid.length
        total[:, k] = np.bincount(bin_of, since, minlength=bins)
    return list(zip(sums, counts, strict=True)), total


def _totals(grid: Grid, group: str) -> tuple[Floats, Floats]:
    """(sums of scores, counts) of a group's sequences, each [checkpoints, chunks]."""
    members = grid.members(group)
    sums, counts = np.zeros((2, len(grid.ckpts), len(grid.chunks)))
    for k in range(len(grid.ckpts)):
        tally = grid.tally(k, members[k])
        counts[k], sums[k] = tally.sum(axis=1), tally @ np.linspace(0, 1, grid.length + 1)
    return sums, counts


def _gain(sums: Floats, counts: Floats, base_sums: Floats, base_counts: Floats) -> Interval:
    """Pooled mean of score - baseline over checkpoints, chunks of both resampled together.

    All four are [checkpoints, chunks].
    """

    def pooled(weights: Floats) -> Floats:
        base_n = weights @ base_counts.T
        with np.errstate(invalid="ignore", divide="ignore"):
            # a resample that leaves a checkpoint without a baseline leaves out that checkpoint
            base = np.where(base_n > 0, weights @ base_sums.T / base_n, np.nan)
            n = np.where(base_n > 0, weights @ counts.T, 0.0)
            total = np.where(base_n > 0, weights @ sums.T - n * base, 0.0)
            return np.asarray(total.sum(axis=1) / n.sum(axis=1), np.float64)

    weights = np.zeros((RESAMPLES, sums.shape[1]))
    train: Bools = counts.sum(axis=0) > 0
    based: Bools = base_counts.sum(axis=0) > 0
    # train chunks serve on both sides (trained on late, a baseline early); held-out ones are a stratum apart
    strata = [train | based] if (based & train).any() else [train, based]
    for seed, members in enumerate(strata):
        weights[:, members] = statistics.cluster_weights(int(members.sum()), RESAMPLES, seed)
    value = float(pooled(np.ones((1, sums.shape[1])))[0])
    clusters = int(min(train.sum(), based.sum()))
    return statistics.percentile_interval(value, pooled(weights), int(counts.sum()), clusters=clusters)
