"""Repetition: how much of a continuation goes round in circles, as early checkpoints do."""

from __future__ import annotations

import itertools
from collections.abc import Sequence


def repetition(ids: Sequence[int]) -> float:
    """The share of pairs of neighbouring ids that were there before; NaN below two ids."""
    pairs = list(itertools.pairwise(ids))
    return 1 - len(set(pairs)) / len(pairs) if pairs else float("nan")
