"""Intervals and paired differences: numpy arrays in, numbers out.

Nothing here knows of checkpoints or frames.  A *cluster* is a chunk of training data: sequences of one chunk
(and of neighbouring chunks) share documents, so they must be kept whole when the chunks are a sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis360.errors import Analysis360Error

__all__ = [
    "Interval",
    "binomial_interval",
    "bootstrap_over_clusters",
    "bootstrap_within_clusters",
    "bootstrap_within_strata",
    "cluster_weights",
    "holm",
    "paired_difference",
    "percentile_bounds",
    "percentile_interval",
    "wilson",
]

Floats = NDArray[np.float64]

_BLOCK = 4_000_000  # numbers held at once by a bootstrap: 32 MB of float64


@dataclass(frozen=True)
class Interval:
    """An estimate and its interval, all in the unit of the values given.

    `n` is the number of observations behind `value`.  Unknown bounds are NaN, never a bound of width zero;
    `method` says how the bounds were found ("none" where they are NaN).
    """

    value: float
    low: float
    high: float
    n: int
    method: str = "none"


def wilson(successes: float, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion in [0, 1] (Wilson 1927): useful bounds at 0 and at n as well.

    `successes` may be a sum of values in [0, 1]: of all distributions on [0, 1] with a given mean the
    two-point one varies most, so the interval then errs on the wide side.  n = 0 gives NaN. Raises
    Analysis360Error unless 0 <= successes <= n and 0 < level < 1.
    """
    _check_level(level)
    if n == 0:
        return Interval(np.nan, np.nan, np.nan, 0)
    if not 0 <= successes <= n * (1 + 1e-9):
        raise Analysis360Error(f"successes must lie between 0 and n = {n}, got {successes}")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    p = min(successes / n, 1.0)
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # at the ends the formula gives the bound up to rounding only; there the bound is the end itself
    low = 0.0 if p == 0 else float(max(centre - half, 0.0))
    high = 1.0 if p == 1 else float(min(centre + half, 1.0))
    return Interval(float(p), low, high, int(n), "Wilson")


def bootstrap_over_clusters(
    sums: ArrayLike,
    counts: ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    proportion: bool = False,
) -> Interval:
    """Interval of the pooled mean sum(sums) / sum(counts) when the clusters are a sample of more clusters.

    `sums` and `counts`, [clusters], are each cluster's sum of values and number of values (empty ones are
    left out).  Whole clusters are drawn with replacement.  Quantiles are those of the expanded percentile
    interval (Hesterberg 2015), without which few clusters give too narrow an interval. Where all resamples
    agree (a single cluster, or no value differs) a bootstrap knows nothing: with `proportion=True`, for
    values in [0, 1], Wilson's interval over all values stands in, which takes them as independent;
    otherwise one cluster gives NaN bounds and several agreeing clusters low = high. Raises Analysis360Error
    on shapes that differ, negative counts, or a level outside (0, 1).
    """
    s, c = np.asarray(sums, np.float64), np.asarray(counts, np.float64)
    if s.shape != c.shape or s.ndim != 1 or (c < 0).any():
        raise Analysis360Error(
            f"sums and counts must be [clusters] with counts >= 0, got shapes {s.shape} and {c.shape}"
        )
    _check_level(level)
    s, c = s[c > 0], c[c > 0]
    n = int(c.sum())
    if n == 0:
        return Interval(np.nan, np.nan, np.nan, 0)
    weights = cluster_weights(len(s), resamples, seed)
    draws = (weights @ s) / (weights @ c)
    value = float(s.sum() / n)
    if not np.isfinite(value):
        return Interval(value, np.nan, np.nan, n)
    if _degenerate(draws):
        return _without_bootstrap(value, n, level, proportion, known=len(s) > 1)
    return percentile_interval(value, draws, n, level=level, clusters=len(s), method="bootstrap over chunks")


def bootstrap_within_clusters(
    histograms: ArrayLike,
    values: ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    proportion: bool = False,
) -> Interval:
    """Interval of the pooled mean when every cluster is in, and only the sequences inside them are a sample.

    `histograms`, [clusters, levels], counts each cluster's sequences at each of the `values`, [levels] (a
    memorization score has l + 1).  Drawing n sequences with replacement is a multinomial draw from the
    histogram, so the cost does not grow with n, and memory is bounded by drawing in blocks of resamples.
    With many sequences and little skewness the quantiles of endless resamples are taken from the resampled
    mean's three first cumulants (Cornish and Fisher 1938) without drawing: a thousandfold faster.
    One cluster makes this the ordinary bootstrap of sequences.  Resamples that all agree: see
    `bootstrap_over_clusters`.  Raises Analysis360Error on shapes that do not fit or negative counts.
    """
    h, v = np.asarray(histograms, np.int64), np.asarray(values, np.float64)
    if h.ndim != 2 or v.shape != h.shape[1:] or (h < 0).any():
        raise Analysis360Error(
            f"expected counts [clusters, levels] and values [levels], got shapes {h.shape} and {v.shape}"
        )
    _check_level(level)
    h = h[h.sum(axis=1) > 0][:, h.sum(axis=0) > 0] if h.size else h[:0]
    n = int(h.sum())
    if n == 0:
        return Interval(np.nan, np.nan, np.nan, 0)
    v = v[np.asarray(histograms).sum(axis=0) > 0]
    value = float(h.sum(axis=0) @ v / n)
    method = "bootstrap within chunks" if len(h) > 1 else "bootstrap over sequences"
    sd, skew = _within_moments(h, v)
    if sd > 1e-12 and n >= 200 and abs(skew) < 0.2:
        tail = NormalDist().inv_cdf(_tail(level, n))
        low, high = (value + sd * (z + (z * z - 1) / 6 * skew) for z in (tail, -tail))
        return Interval(value, low, high, n, method)
    draws = np.concatenate(list(_within_draws(h, v, resamples, seed))) / n
    if _degenerate(draws):
        return _without_bootstrap(value, n, level, proportion, known=n > 1)
    return percentile_interval(value, draws, n, level=level, clusters=n, method=method)


def bootstrap_within_strata(
    sums: ArrayLike,
    counts: ArrayLike,
    strata: ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Interval of sum(sums) / sum(counts) when rows are a sample within each stratum, and every stratum is in.

    All three are [rows]: a row's sum, how many values that is of, and the label of its stratum.  From 200 rows
    on the bounds are those of a normal about the ratio, whose resampled variance is known to first order (exactly,
    where rows of a stratum count alike); fewer are drawn.  One row gives NaN bounds, rows that agree low = high.
    Raises Analysis360Error on shapes that differ, and on counts of 0 or less.
    """
    s, c = np.asarray(sums, np.float64), np.asarray(counts, np.float64)
    labels = np.unique(np.asarray(strata), return_inverse=True)[1]
    if not (s.shape == c.shape == labels.shape and s.ndim == 1) or (c <= 0).any():
        raise Analysis360Error(
            f"expected [rows] with counts above 0, got {s.shape}, {c.shape}, {labels.shape}"
        )
    _check_level(level)
    rows, n = len(s), int(c.sum())
    if rows == 0:
        return Interval(np.nan, np.nan, np.nan, 0)
    value = float(s.sum() / c.sum())
    if rows == 1:
        return Interval(value, np.nan, np.nan, n)
    rest = s - value * c
    sizes = np.bincount(labels)
    rest = rest - (np.bincount(labels, weights=rest) / sizes)[labels]
    sd = float(np.sqrt((rest * rest).sum()) / c.sum())
    if sd <= 1e-12 * max(1.0, abs(value)):
        return Interval(value, value, value, n, "all equal")
    if rows >= 200:
        reach = -NormalDist().inv_cdf(_tail(level, rows)) * sd
        return Interval(value, value - reach, value + reach, n, "bootstrap over rows")
    top, bottom = np.zeros(resamples), np.zeros(resamples)
    for i, size in enumerate(sizes.tolist()):
        weights = cluster_weights(size, resamples, seed + i)
        top += weights @ s[labels == i]
        bottom += weights @ c[labels == i]
    return percentile_interval(
        value, top / bottom, n, level=level, clusters=rows, method="bootstrap over rows"
    )


def _within_moments(h: NDArray[np.int64], v: Floats) -> tuple[float, float]:
    """Standard deviation and skewness of the resampled pooled mean, exactly: the strata are independent."""
    sizes = h.sum(axis=1)
    means = h @ v / sizes
    centred = v[None, :] - means[:, None]
    second, third = (float((h * centred**power).sum()) for power in (2, 3))
    return float(np.sqrt(second)) / float(sizes.sum()), third / second**1.5 if second > 0 else 0.0


def _within_draws(h: NDArray[np.int64], v: Floats, resamples: int, seed: int) -> Iterator[Floats]:
    """Resampled pooled sums, a block of resamples at a time; the block's size does not change the draws."""
    rng = np.random.default_rng(seed)
    sizes = h.sum(axis=1)
    rates = h / sizes[:, None]
    block = max(1, _BLOCK // h.size)
    for start in range(0, resamples, block):
        shape = (min(block, resamples - start), len(h))
        yield rng.multinomial(sizes, rates, size=shape).sum(axis=1) @ v


@lru_cache(maxsize=8)
def cluster_weights(clusters: int, resamples: int = 2000, seed: int = 0) -> Floats:
    """How often each cluster is drawn in each resample: read-only [resamples, clusters].

    Rows are multinomial with equal rates and sum to `clusters`.  The last few answers are kept, since one
    table asks for the same weights for score, extractible share and every checkpoint.
    """
    rng = np.random.default_rng(seed)
    weights = np.empty((resamples, clusters), np.float64)
    block = max(1, _BLOCK // max(clusters, 1))
    for start in range(0, resamples, block):
        picks = rng.integers(0, clusters, (min(block, resamples - start), clusters))
        picks += np.arange(len(picks))[:, None] * clusters
        counts = np.bincount(picks.ravel(), minlength=picks.size)
        weights[start : start + len(picks)] = counts.reshape(picks.shape)
    weights.flags.writeable = False
    return weights


def percentile_interval(
    value: float, draws: ArrayLike, n: int, *, level: float = 0.95, clusters: int, method: str = "bootstrap"
) -> Interval:
    """Expanded percentile interval of `draws`, [resamples] (Hesterberg 2015, section 4.2).

    The tail's probability is that of a normal at sqrt(m / (m - 1)) times Student's quantile with m - 1
    degrees, m = `clusters`: the plain percentile interval is as if m were very large.  NaN draws are
    ignored; with fewer than two clusters or no draw left the bounds are NaN.
    """
    _check_level(level)
    kept = np.asarray(draws, np.float64)
    kept = kept[~np.isnan(kept)]
    if clusters < 2 or not len(kept):
        return Interval(value, np.nan, np.nan, n)
    tail = _tail(level, clusters)
    low, high = np.quantile(kept, [tail, 1 - tail])
    return Interval(value, float(low), float(high), n, method)


def percentile_bounds(draws: ArrayLike, clusters: ArrayLike, *, level: float = 0.95) -> tuple[Floats, Floats]:
    """Low and high, [columns], of many columns of `draws`, [resamples, columns]: see `percentile_interval`.

    `clusters`, [columns], may differ from one to the next.
    """
    _check_level(level)
    table, m = np.asarray(draws, np.float64), np.asarray(clusters, np.int64)
    if table.ndim != 2 or m.shape != table.shape[1:]:
        raise Analysis360Error(
            f"expected draws [resamples, columns] and clusters [columns], got shapes {table.shape} and {m.shape}"
        )
    bounds = np.full((2, len(m)), np.nan)
    known = ~np.isnan(table).all(axis=0)
    for count in np.unique(m[(m > 1) & known]):
        some = (m == count) & known
        tail = _tail(level, int(count))
        quantile = np.nanquantile if np.isnan(table[:, some]).any() else np.quantile
        bounds[:, some] = quantile(table[:, some], [tail, 1 - tail], axis=0)
    return bounds[0], bounds[1]


def holm(p: ArrayLike) -> Floats:
    """p-values, [n], as Holm's procedure (1979) corrects them: compare with the level that all together shall keep.

    NaN stays NaN and is no part of the family.
    """
    given = np.asarray(p, np.float64)
    found = np.full(given.shape, np.nan)
    places = np.flatnonzero(~np.isnan(given))
    order = places[np.argsort(given[places], kind="stable")]
    stepped = given[order] * np.arange(len(order), 0, -1)
    found[order] = np.minimum(np.maximum.accumulate(stepped), 1.0) if len(order) else stepped
    return found


def _tail(level: float, clusters: int) -> float:
    tail = (1 - level) / 2
    if clusters >= 2000:  # from there on both tails agree to three digits, and scipy need not be loaded
        return tail
    special: Any = import_module("scipy.special")
    stretch = np.sqrt(clusters / (clusters - 1))
    return NormalDist().cdf(float(special.stdtrit(clusters - 1, tail)) * stretch)


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    clusters: ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Mean of b - a over the same sequences at two checkpoints, a the earlier; in the unit of the values.

    `a`, `b` and `clusters` are [n]; a pair with a NaN is left out.  Comparing a sequence with itself removes
    what makes it easy or hard in general.  Whole clusters are resampled.  Raises Analysis360Error on shapes
    that differ.
    """
    x, y, labels = np.asarray(a, np.float64), np.asarray(b, np.float64), np.asarray(clusters)
    if not (x.shape == y.shape == labels.shape and x.ndim == 1):
        raise Analysis360Error(f"a, b and clusters must be [n], got {x.shape}, {y.shape}, {labels.shape}")
    difference = y - x
    kept = ~np.isnan(difference)
    _, codes = np.unique(labels[kept], return_inverse=True)
    sums = np.bincount(codes, weights=difference[kept])
    return bootstrap_over_clusters(sums, np.bincount(codes), level=level, resamples=resamples, seed=seed)


def binomial_interval(n: int, p: float, level: float = 0.95) -> tuple[int, int]:
    """Central interval (low, high), both included, of the successes in n trials at rate p.

    Used for controls: the counts that chance alone explains.  Each tail outside holds at most (1 - level) /
    2. Raises Analysis360Error unless n >= 0, 0 <= p <= 1 and 0 < level < 1.
    """
    _check_level(level)
    if n < 0 or not 0 <= p <= 1:
        raise Analysis360Error(f"expected n >= 0 and 0 <= p <= 1, got n = {n}, p = {p}")
    if n == 0 or p in (0, 1):
        return int(n * p), int(n * p)
    # far outside this window lies less than any double's rounding, so n may be in the billions
    reach = 12 * np.sqrt(n * p * (1 - p)) + 60
    first, last = max(0, int(n * p - reach)), min(n, int(n * p + reach) + 1)
    k = np.arange(first + 1, last + 1, dtype=np.float64)
    steps = np.log((n - k + 1) / k) + np.log(p) - np.log1p(-p)
    log_mass = np.concatenate([[0.0], np.cumsum(steps)])
    mass = np.exp(log_mass - log_mass.max())
    below = np.cumsum(mass / mass.sum())
    tail = (1 - level) / 2
    above = np.cumsum((mass / mass.sum())[::-1])[::-1]  # summed from the far end, where 1 - below would round
    low = int(np.searchsorted(below, tail))
    high = int(np.flatnonzero(above > tail)[-1])
    return first + low, first + high


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise Analysis360Error(f"level must lie between 0 and 1 (0.95 for 95 %), got {level}")


def _degenerate(draws: Floats) -> bool:
    return bool(np.ptp(draws) <= 1e-12 * max(1.0, float(np.abs(draws).max())))


def _without_bootstrap(value: float, n: int, level: float, proportion: bool, known: bool) -> Interval:
    if proportion:
        return wilson(min(max(value, 0.0), 1.0) * n, n, level)
    return Interval(value, value, value, n, "all equal") if known else Interval(value, np.nan, np.nan, n)
