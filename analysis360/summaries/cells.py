"""Tallies behind `summaries`: rows counted by checkpoint, chunk and score, without a loop over rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis360 import statistics
from analysis360.errors import Analysis360Error
from analysis360.statistics import Interval

GROUPS = ("trained text", "not yet trained", "held-out text", "canaries", "never planted")
MEASURES = [
    "sequences",
    "chunks",
    "score_mean",
    "score_mean_low",
    "score_mean_high",
    "extractible_share",
    "extractible_share_low",
    "extractible_share_high",
    "score_interval",
    "extractible_interval",
]
RESAMPLES = 1000

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Axis:
    """A categorical column without its unused categories: `codes` [rows] into `names`."""

    codes: Ints
    names: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def column(self, index: Any) -> pd.Categorical[str]:
        codes = np.asarray(index, np.int64)
        return pd.Categorical.from_codes(codes, pd.Index(self.names, dtype=str), ordered=True)

    def first(self, values: Any) -> Floats:
        """The value at each name, [names], of a column that is constant over the name's rows."""
        found = np.full(len(self), np.nan)
        found[self.codes] = np.asarray(values, np.float64)
        return found


@dataclass(frozen=True)
class Cells:
    """Counts of scored sequences by checkpoint, chunk and score."""

    histogram: Ints  # [checkpoints, chunks, levels]
    levels: Floats  # [levels], the distinct scores
    extractible: Ints  # [checkpoints, chunks]

    @property
    def counts(self) -> Ints:
        counts: Ints = self.histogram.sum(axis=2)
        return counts

    @property
    def sums(self) -> Floats:
        return self.histogram @ self.levels

    def measures(self, k: int, chosen: Bools, complete: bool, bounds: bool = True) -> dict[str, Any]:
        """Checkpoint k's columns MEASURES over the chosen chunks [chunks]; empty where nothing was scored."""
        counts, hits = self.histogram[k, chosen], self.extractible[k, chosen]
        sizes = counts.sum(axis=1)
        used, n = int((sizes > 0).sum()), int(sizes.sum())
        if n == 0:
            return {}
        options: dict[str, Any] = {"resamples": RESAMPLES, "proportion": True}
        if not bounds:
            score = Interval(float(counts.sum(axis=0) @ self.levels / n), np.nan, np.nan, n)
            share = Interval(float(hits.sum() / n), np.nan, np.nan, n)
        elif used == 1:
            score = statistics.bootstrap_within_clusters(counts, self.levels, **options)
            share = statistics.wilson(int(hits.sum()), n)
        elif complete:
            two = np.stack([sizes - hits, hits], axis=1)
            score = statistics.bootstrap_within_clusters(counts, self.levels, **options)
            share = statistics.bootstrap_within_clusters(two, [0.0, 1.0], **options)
        else:
            score = statistics.bootstrap_over_clusters(counts @ self.levels, sizes, **options)
            share = statistics.bootstrap_over_clusters(hits, sizes, **options)
        return {
            "sequences": n,
            "chunks": used,
            **bounds_of("score_mean", score),
            **bounds_of("extractible_share", share),
            "score_interval": score.method,
            "extractible_interval": share.method,
        }


def require(frame: pd.DataFrame, names: str) -> None:
    """Raise Analysis360Error naming every column the table lacks."""
    missing = [name for name in ("ckpt", "chunk", "tokens", *names.split()) if name not in frame.columns]
    if missing:
        raise Analysis360Error(f"the frame lacks the columns {', '.join(missing)}; pass Result.frame()")


def axis_of(frame: pd.DataFrame, name: str) -> Axis:
    """The used categories of a column, in order, and the code of every row."""
    column = frame[name]
    if not isinstance(column.dtype, pd.CategoricalDtype) or column.isna().any():
        raise Analysis360Error(
            f"column {name} must be an ordered Categorical without gaps, got {column.dtype}"
        )
    codes = column.cat.codes.to_numpy(np.int64)
    used = np.bincount(codes, minlength=len(column.cat.categories)) > 0
    names = [str(category) for category, kept in zip(column.cat.categories, used, strict=True) if kept]
    return Axis((np.cumsum(used) - 1)[codes], names)


def is_value(frame: pd.DataFrame, column: str, value: str) -> Bools:
    """[rows] whether a column holds the value."""
    return (frame[column] == value).to_numpy(bool)


def scored(frame: pd.DataFrame) -> Bools:
    """[rows] whether a sequence has a score."""
    return frame["score"].notna().to_numpy(bool)


def hits_of(scores: NDArray[Any], continuation_tokens: int) -> Ints:
    """Right tokens behind each score, [rows]."""
    exact = np.asarray(scores, np.float64) * continuation_tokens
    hits = np.rint(exact)
    if (np.abs(exact - hits) > 1e-3).any() or ((hits < 0) | (hits > continuation_tokens)).any():
        raise Analysis360Error(f"scores must be multiples of 1/l in [0, 1] with l = {continuation_tokens}")
    return hits.astype(np.int64)


def group_masks(frame: pd.DataFrame) -> dict[str, Bools]:
    """Rows of each of GROUPS, [rows]; NaN exposures are in none of the first two."""
    train, canary = is_value(frame, "role", "train"), is_value(frame, "role", "canary")
    exposures = frame["exposures"].to_numpy(np.float64)
    seen = exposures >= 1
    never = canary & (frame["repeats"].to_numpy(np.float64) == 0)
    groups = (
        train & seen,
        train & (exposures == 0),
        is_value(frame, "role", "held-out"),
        canary & seen,
        never,
    )
    return dict(zip(GROUPS, groups, strict=True))


def cells_of(frame: pd.DataFrame, ckpts: Axis, chunks: Axis, mask: Bools) -> Cells:
    """Tallies of the masked rows by (checkpoint, chunk)."""
    kept = mask & scored(frame)
    codes, levels = pd.factorize(frame["score"].to_numpy()[kept])
    shape = len(ckpts), len(chunks), len(levels)
    cell = ckpts.codes[kept] * len(chunks) + chunks.codes[kept]
    histogram = np.bincount(cell * len(levels) + codes, minlength=int(np.prod(shape)))
    right = frame["extractible"].to_numpy(bool)[kept]
    extractible = np.bincount(cell[right], minlength=shape[0] * shape[1]).reshape(shape[:2])
    return Cells(histogram.reshape(shape), np.asarray(levels, np.float64), extractible)


def bounds_of(name: str, interval: Interval) -> dict[str, float]:
    """The three columns that an interval fills."""
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def edges_of(since: Floats, bins: int | Sequence[float]) -> Floats:
    """Bin edges over tokens since the last exposure."""
    if isinstance(bins, int):
        if bins < 1:
            raise Analysis360Error(f"bins must be at least 1, got {bins}")
        if not len(since):
            return np.array([0.0])
        edges = np.unique(np.quantile(since, np.linspace(0, 1, bins + 1)))
        return edges if len(edges) > 1 else np.repeat(edges, 2)
    given = np.asarray(bins, np.float64)
    if len(given) < 2 or not (np.diff(given) > 0).all():
        raise Analysis360Error(f"bins must be at least two ascending edges in tokens, got {list(bins)}")
    return given


def gain_of(trained: Cells, baseline: Cells, usable: Bools) -> Interval:
    """Pooled mean of score - baseline over the usable checkpoints, chunks of both resampled together."""
    sums, counts = trained.sums[usable], trained.counts[usable]
    base_sums, base_counts = baseline.sums[usable], baseline.counts[usable]

    def pooled(weights: Floats) -> Floats:
        base_n = weights @ base_counts.T
        with np.errstate(invalid="ignore", divide="ignore"):
            # a resample that leaves a checkpoint without a baseline leaves out that checkpoint
            base = np.where(base_n > 0, weights @ base_sums.T / base_n, np.nan)
            n = np.where(base_n > 0, weights @ counts.T, 0.0)
            total = np.where(base_n > 0, weights @ sums.T - n * base, 0.0)
            return np.asarray(total.sum(axis=1) / n.sum(axis=1), np.float64)

    weights = np.zeros((RESAMPLES, sums.shape[1]))
    train = counts.sum(axis=0) > 0
    base_only = (base_counts.sum(axis=0) > 0) & ~train
    shared = bool(((base_counts.sum(axis=0) > 0) & train).any())
    # train chunks serve on both sides (trained on late, a baseline early); held-out ones are a stratum apart
    strata = [train | base_only] if shared else [train, base_only]
    for seed, members in enumerate(strata):
        weights[:, members] = statistics.cluster_weights(int(members.sum()), RESAMPLES, seed)
    value = float(pooled(np.ones((1, sums.shape[1])))[0])
    return statistics.percentile_interval(
        value,
        pooled(weights),
        int(counts.sum()),
        clusters=int(min(train.sum(), (base_counts.sum(axis=0) > 0).sum())),
    )
