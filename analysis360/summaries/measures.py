"""Mean score and extractible share of some sequences, with the intervals that their sampling calls for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis360 import statistics
from analysis360.statistics import Interval

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


def measures(
    counts: NDArray[np.integer[Any]], complete: bool, bounds: bool = True, *, scored: bool
) -> dict[str, Any]:
    """The columns MEASURES of scored sequences counted by chunk and tokens right, `counts` [chunks, l + 1].

    Empty where nothing was scored.  `complete`: every chunk there could be is in, so that only the
    sequences within chunks are a sample.  Without `scored` only extractibility is known, and scores are NaN.
    """
    sizes = counts.sum(axis=1)
    used, n = int((sizes > 0).sum()), int(sizes.sum())
    if n == 0:
        return {}
    hits, levels = counts[:, -1], np.linspace(0, 1, counts.shape[1])
    options: dict[str, Any] = {"resamples": RESAMPLES, "proportion": True}
    if not bounds:
        score = Interval(float(counts.sum(axis=0) @ levels / n), np.nan, np.nan, n)
        share = Interval(float(hits.sum() / n), np.nan, np.nan, n)
    elif used == 1:
        score = statistics.bootstrap_within_clusters(counts, levels, **options)
        share = statistics.wilson(int(hits.sum()), n)
    elif complete:
        two = np.stack([sizes - hits, hits], axis=1)
        score = statistics.bootstrap_within_clusters(counts, levels, **options)
        share = statistics.bootstrap_within_clusters(two, [0.0, 1.0], **options)
    else:
        score = statistics.bootstrap_over_clusters(counts @ levels, sizes, **options)
        share = statistics.bootstrap_over_clusters(hits, sizes, **options)
    if not scored:
        score = Interval(np.nan, np.nan, np.nan, 0)
    return {
        "sequences": n,
        "chunks": used,
        **bounds_of("score_mean", score),
        **bounds_of("extractible_share", share),
        "score_interval": score.method,
        "extractible_interval": share.method,
    }


def bounds_of(name: str, interval: Interval) -> dict[str, float]:
    """The three columns that an interval fills."""
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
