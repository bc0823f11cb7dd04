"""Means of groups, and gaps between them, by a bootstrap over titles: sums a title in, estimates out.

Titles are what BOLD's prompts are from, and several prompts share one, so titles are what is drawn anew. One draw of
titles serves all groups and checkpoints of a domain: what they share moves together, and a gap knows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis360.statistics import cluster_weights, percentile_bounds, wilson

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
LEAST_TITLES = 5
"""Titles below which nothing is said of how sure a number is."""
RESAMPLES = 2000


@dataclass(frozen=True)
class Cells:
    """The titles of a domain's groups; a title in two groups is two cells."""

    groups: tuple[str, ...]
    group: Ints
    """[cells] number of the group."""
    title: Ints
    """[cells] number of the title among all of the domain."""

    @classmethod
    def of(cls, groups: Sequence[str], titles: Sequence[str]) -> tuple[Cells, Ints]:
        """The cells of [lines] groups and titles, and [lines] the cell of each; groups as they first appear."""
        group_of = {name: i for i, name in enumerate(dict.fromkeys(groups))}
        title_of = {name: i for i, name in enumerate(dict.fromkeys(titles))}
        pairs = [(group_of[g], title_of[t]) for g, t in zip(groups, titles, strict=True)]
        cell_of = {pair: i for i, pair in enumerate(dict.fromkeys(pairs))}
        both = np.array(list(cell_of), np.int64).reshape(-1, 2)
        return cls(tuple(group_of), both[:, 0], both[:, 1]), np.array([cell_of[pair] for pair in pairs])

    def __len__(self) -> int:
        return len(self.group)


@dataclass(frozen=True)
class Means:
    """One measure of every group under every checkpoint, all [groups, checkpoints]."""

    value: Floats
    low: Floats
    high: Floats
    """95 %; NaN below LEAST_TITLES titles, and where no title differs from another in its mean."""
    n: Ints
    """Texts with a number."""
    titles: Ints
    """Titles of these."""


@dataclass(frozen=True)
class Gaps:
    """One measure of a group less that of another, [pairs, checkpoints] but for `pairs`."""

    pairs: tuple[tuple[int, int], ...]
    """Numbers of the two groups."""
    gap: Floats
    low: Floats
    high: Floats
    """95 %; NaN where one of the two has fewer than LEAST_TITLES titles, or a mean that does not vary."""
    p: Floats
    """Of no difference, two-sided, not yet corrected for many."""


def estimate(
    cells: Cells, sums: Floats, counts: Floats, *, share: bool, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[Means, Gaps]:
    """Means and gaps from [checkpoints, cells] sums of values and numbers of values.

    `share` says that values are 0 or 1: where every draw agrees, Wilson's interval over titles stands in, and
    Newcombe's for a gap with it. Few texts that count are not taken for certainty: see `_pooled`.
    """
    members = [np.flatnonzero(cells.group == i) for i in range(len(cells.groups))]
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.array([sums[:, m].sum(axis=1) / counts[:, m].sum(axis=1) for m in members])
        weights = cluster_weights(int(cells.title.max(initial=-1)) + 1, resamples, seed)
        draws = [_draws(weights[:, cells.title[m]], sums[:, m], counts[:, m]) for m in members]
    n = np.array([counts[:, m].sum(axis=1) for m in members]).astype(np.int64)
    titles = np.array([(counts[:, m] > 0).sum(axis=1) for m in members])
    bounds = [_bounds(drawn, v, t, share=share) for drawn, v, t in zip(draws, value, titles, strict=True)]
    means = Means(value, np.array([b[0] for b in bounds]), np.array([b[1] for b in bounds]), n, titles)
    return means, _gaps(means, draws, share=share)


def _draws(weights: Floats, sums: Floats, counts: Floats) -> Floats:
    """[resamples, checkpoints] means of resampled titles; NaN where none was drawn."""
    found: Floats = (weights @ sums.T) / (weights @ counts.T)
    return found


def _bounds(draws: Floats, value: Floats, titles: Ints, *, share: bool) -> tuple[Floats, Floats]:
    low, high = percentile_bounds(draws, np.where(titles >= LEAST_TITLES, titles, 0))
    for k in np.flatnonzero((_spread(draws) == 0) & (titles >= LEAST_TITLES)):
        low[k] = high[k] = np.nan  # no width is no certainty
        if share:
            found = wilson(float(value[k]) * int(titles[k]), int(titles[k]))
            low[k], high[k] = found.low, found.high
    return low, high


def _spread(draws: Floats) -> Floats:
    """[checkpoints] standard deviation of the draws, 0 where they agree but for rounding."""
    known = ~np.isnan(draws).all(axis=0)
    found = np.full(draws.shape[1], np.nan)
    found[known] = np.nanstd(draws[:, known], axis=0)
    return np.where(found < 1e-12, 0.0, found)


def _gaps(means: Means, draws: Sequence[Floats], *, share: bool) -> Gaps:
    pairs = tuple(combinations(range(len(draws)), 2))
    shape = len(pairs), means.value.shape[1]
    gap, low, high, p = (np.full(shape, np.nan) for _ in range(4))
    own = np.array([_spread(drawn) for drawn in draws])
    effect = _design_effect(means, own) if share else np.zeros(shape[1])
    for i, (a, b) in enumerate(pairs):
        gap[i] = means.value[a] - means.value[b]
        fewer = np.minimum(means.titles[a], means.titles[b])
        known = fewer >= LEAST_TITLES
        drawn = draws[a] - draws[b]
        low[i], high[i] = percentile_bounds(drawn, np.where(known, fewer, 0))
        least = _pooled(means, effect, a, b) if share else _borrowed(means, own, a, b)
        p[i] = _p(gap[i], np.fmax(_spread(drawn), least), fewer)
        for k in np.flatnonzero(known & ((own[a] == 0) | (own[b] == 0))):
            low[i, k], high[i, k] = _newcombe(means, a, b, int(k)) if share else (np.nan, np.nan)
            if own[a, k] == own[b, k]:
                p[i, k] = _separation(float(gap[i, k]), int(means.titles[a, k]), int(means.titles[b, k]))
        p[i, ~known] = np.nan
    return Gaps(pairs, gap, low, high, p)


def _design_effect(means: Means, spread: Floats) -> Floats:
    """[checkpoints] how much more shares vary than if texts were independent: the median of the groups that vary.

    Where none does, as if all texts of a title were one.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        binomial = means.value * (1 - means.value) / means.n
        effects = np.where(spread > 0, spread**2 / binomial, np.nan)
        alike = np.max(np.where(means.titles > 0, means.n / means.titles, 1.0), axis=0)
    known = np.isfinite(effects).any(axis=0)
    effect = alike.astype(np.float64)
    effect[known] = np.nanmedian(effects[:, known], axis=0)
    found: Floats = np.maximum(effect, 1.0)
    return found


def _pooled(means: Means, effect: Floats, a: int, b: int) -> Floats:
    """[checkpoints] the standard error of no difference between two shares, from the share of both together.

    Where few texts count, or none, the draws of a group vary too little.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        n = means.n[[a, b]].astype(np.float64)
        both = (means.value[[a, b]] * n).sum(axis=0) / n.sum(axis=0)
        found: Floats = np.sqrt(both * (1 - both) * effect * (1 / n).sum(axis=0))
    return found


def _borrowed(means: Means, spread: Floats, a: int, b: int) -> Floats:
    """[checkpoints] of two means, where one does not vary: as if its titles varied as those of the other do."""
    titles = means.titles[[a, b]].astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        of_title = (spread[[a, b]] * np.sqrt(titles)).max(axis=0)
        error = of_title * np.sqrt((1 / titles).sum(axis=0))
    found: Floats = np.where((spread[[a, b]] == 0).any(axis=0), error, 0.0)
    return found


def _p(gap: Floats, spread: Floats, titles: Ints) -> Floats:
    """Two-sided, by Student's distribution with as many degrees as the smaller group has titles, less one."""
    special: Any = import_module("scipy.special")
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = 2 * special.stdtr(np.maximum(titles - 1, 1), -np.abs(gap / spread))
    return found


def _separation(gap: float, a: int, b: int) -> float:
    """Where no title of a group differs from another: how often chance parts the titles so, or nothing to part."""
    return min(2 / comb(a + b, a), 1.0) if gap else 1.0


def _newcombe(means: Means, a: int, b: int, k: int) -> tuple[float, float]:
    """Newcombe's interval (1998, method 10) of a difference of two shares, from the interval of each."""
    (x, low_x, high_x), (y, low_y, high_y) = (
        (means.value[g, k], means.low[g, k], means.high[g, k]) for g in (a, b)
    )
    below = np.hypot(x - low_x, high_y - y)
    above = np.hypot(high_x - x, y - low_y)
    return float(x - y - below), float(x - y + above)
