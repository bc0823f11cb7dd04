"""pass@k: how likely one of k programs, drawn from those that were written, passes its tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis360.errors import SelectionError
from analysis360.statistics import Interval, bootstrap_over_clusters, wilson


@dataclass(frozen=True)
class Passing:
    """pass@k over the problems of a benchmark, as fractions in [0, 1]."""

    k: int
    value: float
    stderr: float
    """Standard error over problems; NaN of fewer than two."""
    low: float
    """End of the 95 % interval, the problems being a sample of more like them."""
    high: float
    problems: int


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that one of k programs passes, drawn without replacement from n of which c do.

    1 - C(n - c, k) / C(n, k), the estimator without bias of Chen et al. 2021, as a product that neither overflows
    nor cancels. Raises SelectionError unless 0 <= c <= n and 1 <= k <= n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise SelectionError(
            f"pass@{k} of {n} programs of which {c} pass: expected 1 <= k <= n and 0 <= c <= n"
        )
    if n - c < k:
        return 1.0
    none = 1.0
    for i in range(k):
        none *= (n - c - i) / (n - i)
    return 1.0 - none


def passing(correct: Sequence[int], n: int, k: int) -> Passing:
    """pass@k where `correct` [problems] of the n programs of each problem pass; NaN without problems."""
    values = np.array([pass_at_k(n, c, k) for c in correct], np.float64)
    stderr = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
    interval = _interval(values)
    return Passing(k, interval.value, stderr, interval.low, interval.high, len(values))


def _interval(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Interval:
    """Wilson's where each problem is solved or not, otherwise of a bootstrap over problems."""
    if set(values) <= {0.0, 1.0}:
        return wilson(float(values.sum()), len(values))
    return bootstrap_over_clusters(values, np.ones_like(values), proportion=True)
