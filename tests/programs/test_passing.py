"""pass@k beside exact rational combinatorics, drawing, and what its interval promises."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis360.errors import SelectionError
from analysis360.tasks.code.passing import pass_at_k, passing


def exact(n: int, c: int, k: int) -> Fraction:
    return 1 - Fraction(comb(n - c, k), comb(n, k))


@settings(deadline=None)
@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_it_is_the_exact_ratio_to_the_last_digits(case: tuple[int, int, int]) -> None:
    assert pass_at_k(*case) == pytest.approx(float(exact(*case)), rel=1e-12, abs=1e-12)


def test_it_is_the_share_of_draws_that_hold_one_that_passes() -> None:
    for n in range(1, 8):
        for c in range(n + 1):
            for k in range(1, n + 1):
                draws = [any(i < c for i in some) for some in combinations(range(n), k)]
                assert pass_at_k(n, c, k) == pytest.approx(sum(draws) / len(draws))


def test_it_has_no_bias() -> None:
    """Over all outcomes of n programs that pass at rate p its mean is 1 - (1 - p)^k."""
    for n, k, p in ((5, 3, 0.2), (20, 10, 0.05), (7, 1, 0.5)):
        mass = [comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
        mean = sum(m * pass_at_k(n, c, k) for c, m in enumerate(mass))
        assert mean == pytest.approx(1 - (1 - p) ** k)


@pytest.mark.parametrize(("n", "c", "k"), [(1, 2, 1), (1, -1, 1), (3, 1, 4), (3, 1, 0)])
def test_what_cannot_be_is_refused(n: int, c: int, k: int) -> None:
    with pytest.raises(SelectionError, match="expected 1 <= k <= n"):
        pass_at_k(n, c, k)


def test_a_benchmark_is_the_mean_over_its_problems() -> None:
    found = passing([0, 1, 2, 4], 4, 2)
    values = [float(exact(4, c, 2)) for c in (0, 1, 2, 4)]
    assert found.value == pytest.approx(np.mean(values))
    assert found.stderr == pytest.approx(np.std(values, ddof=1) / 2)
    assert (found.problems, found.k) == (4, 2)
    assert found.low < found.value < found.high
    greedy = passing([1] * 41 + [0] * 123, 1, 1)
    assert greedy.value == 0.25
    assert 0.18 < greedy.low < 0.2 < 0.31 < greedy.high < 0.33
    assert np.isnan(passing([], 1, 1).value)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        rates = rng.beta(0.4, 1.2, 100)
        truth = float(np.mean(1 - (1 - np.random.default_rng(1).beta(0.4, 1.2, 200_000)) ** 2))
        found = passing(rng.binomial(8, rates).tolist(), 8, 2)
        held += found.low <= truth <= found.high
    assert 180 <= held <= 199
