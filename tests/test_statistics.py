"""Intervals and differences against brute force, pandas, scipy and simulated coverage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from analysis360 import statistics as stats
from analysis360.errors import Analysis360Error

scipy_stats = pytest.importorskip("scipy.stats")


# --- proportions -----------------------------------------------------------------------------------------------


@given(st.integers(1, 10**6), st.floats(0, 1), st.sampled_from([0.8, 0.95, 0.999]))
@settings(max_examples=60, deadline=None)
def test_wilson_equals_scipy(n, share, level):
    k = round(share * n)
    ours = stats.wilson(k, n, level)
    theirs = scipy_stats.binomtest(k, n).proportion_ci(level, method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert 0 <= ours.low <= ours.value <= ours.high <= 1


def test_wilson_says_something_at_the_ends():
    none, every = stats.wilson(0, 1000), stats.wilson(1000, 1000)
    assert none.low == 0
    assert 0 < none.high < 0.005
    assert every.high == 1
    assert 0.995 < every.low < 1
    assert np.isnan(stats.wilson(0, 0).low)
    assert stats.wilson(0, 0).n == 0


def test_wilson_covers():
    rng = np.random.default_rng(0)
    for p, n in ((0.016, 1000), (0.3, 60)):
        intervals = [stats.wilson(int(k), n) for k in rng.binomial(n, p, 2000)]
        assert np.mean([i.low <= p <= i.high for i in intervals]) > 0.93


@pytest.mark.parametrize("bad", [(-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(bad):
    with pytest.raises(Analysis360Error, match="between 0 and n = 5"):
        stats.wilson(*bad)


@pytest.mark.parametrize("level", [0, 1, 95])
def test_levels_are_fractions(level):
    with pytest.raises(Analysis360Error, match=r"0\.95 for 95 %"):
        stats.wilson(1, 2, level)


@given(st.integers(0, 200_000), st.floats(1e-6, 1 - 1e-6), st.sampled_from([0.5, 0.95, 0.999]))
@settings(max_examples=80, deadline=None)
def test_binomial_interval_is_central(n, p, level):
    low, high = stats.binomial_interval(n, p, level)
    law, tail = scipy_stats.binom(n, p), (1 - level) / 2
    slack = tail * 1e-6  # ties between the tail and a cumulative sum may fall either way
    assert law.cdf(low - 1) <= tail + slack
    assert law.sf(high) <= tail + slack
    assert law.cdf(low) >= tail - slack
    assert law.sf(high - 1) >= tail - slack


def test_binomial_interval_of_billions_and_of_nothing():
    low, high = stats.binomial_interval(4_000_000_000, 1 / 32_000, 0.999)
    assert (low, high) == tuple(scipy_stats.binom.interval(0.999, 4_000_000_000, 1 / 32_000))
    assert stats.binomial_interval(0, 0.3) == (0, 0)
    assert stats.binomial_interval(7, 0.0) == (0, 0)
    assert stats.binomial_interval(7, 1.0) == (7, 7)
    with pytest.raises(Analysis360Error):
        stats.binomial_interval(-1, 0.5)


# --- bootstraps ------------------------------------------------------------------------------------------------


def test_cluster_weights_are_equal_multinomial_draws():
    weights = stats.cluster_weights(20, 4000, seed=3)
    assert weights.shape == (4000, 20)
    assert (weights.sum(axis=1) == 20).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(20), abs=0.1)
    assert weights.var() == pytest.approx(1 - 1 / 20, abs=0.03)
    assert np.cov(weights[:, 0], weights[:, 1])[0, 1] == pytest.approx(-1 / 20, abs=0.05)


def test_over_clusters_equals_resampling_by_hand():
    rng = np.random.default_rng(1)
    groups = [rng.normal(rng.normal(), 1, rng.integers(1, 30)) for _ in range(25)]
    sums, counts = [g.sum() for g in groups], [len(g) for g in groups]
    ours = stats.bootstrap_over_clusters(sums, counts, resamples=8000)
    means = [np.concatenate([groups[i] for i in rng.integers(0, 25, 25)]).mean() for _ in range(8000)]
    tail = scipy_stats.norm.cdf(scipy_stats.t.ppf(0.025, 24) * np.sqrt(25 / 24))
    low, high = np.quantile(means, [tail, 1 - tail])
    width = high - low
    assert ours.value == pytest.approx(np.concatenate(groups).mean())
    assert (ours.low, ours.high) == pytest.approx((low, high), abs=0.06 * width)
    assert ours.n == sum(counts)
    assert ours.method == "bootstrap over chunks"


@pytest.mark.parametrize(("clusters", "floor"), [(5, 0.88), (12, 0.91), (60, 0.925)])
def test_over_clusters_covers_where_sequences_alone_would_not(clusters, floor):
    rng = np.random.default_rng(clusters)
    over, within = [], []
    for _ in range(400):
        rates = rng.beta(2, 8, clusters)  # chunks differ: mean 0.2
        hits = rng.binomial(100, rates)
        counts = np.full(clusters, 100)
        o = stats.bootstrap_over_clusters(hits, counts, resamples=500)
        w = stats.wilson(int(hits.sum()), int(counts.sum()))
        over.append(o.low <= 0.2 <= o.high)
        within.append(w.low <= 0.2 <= w.high)
    assert np.mean(over) > floor
    assert np.mean(within) < 0.7


def test_within_clusters_covers_the_mean_of_these_chunks():
    rng = np.random.default_rng(5)
    values = np.arange(9) / 8
    rates = rng.dirichlet(np.ones(9) * 0.5, 12)
    truth = (rates @ values).mean()
    covered = {}
    for size in (40, 400):  # drawn, and from the cumulants
        intervals = [
            stats.bootstrap_within_clusters(rng.multinomial(size, rates), values, resamples=400, seed=i)
            for i in range(400)
        ]
        covered[size] = np.mean([i.low <= truth <= i.high for i in intervals])
    assert min(covered.values()) > 0.92
    assert max(covered.values()) < 0.98


def test_within_clusters_is_narrower_than_over_clusters_when_chunks_differ():
    histograms = np.array([[900, 100], [500, 500], [100, 900], [300, 700]] * 4)
    within = stats.bootstrap_within_clusters(histograms, [0, 1])
    over = stats.bootstrap_over_clusters(histograms[:, 1], histograms.sum(axis=1))
    assert within.value == pytest.approx(over.value)
    assert (within.high - within.low) < 0.2 * (over.high - over.low)


def test_cumulants_agree_with_draws(monkeypatch):
    rng = np.random.default_rng(2)
    values = np.arange(33) / 32
    histograms = rng.multinomial(500, rng.dirichlet(np.ones(33) * 0.3, 6))
    quick = stats.bootstrap_within_clusters(histograms, values)
    monkeypatch.setattr(stats, "_within_moments", lambda h, v: (0.0, 0.0))  # never small enough: always draw
    drawn = stats.bootstrap_within_clusters(histograms, values, resamples=40_000)
    width = drawn.high - drawn.low
    assert (quick.low, quick.high) == pytest.approx((drawn.low, drawn.high), abs=0.02 * width)


def test_blocks_bound_memory_and_do_not_change_the_draws(monkeypatch):
    histograms = np.array([[5, 3, 0, 2], [4, 4, 0, 9]])
    whole = stats.bootstrap_within_clusters(histograms, [0, 0.5, 0.7, 1])
    stats.cluster_weights.cache_clear()
    over = stats.bootstrap_over_clusters([1.0, 2.0, 4.0], [3, 3, 5])
    monkeypatch.setattr(stats, "_BLOCK", 50)
    stats.cluster_weights.cache_clear()
    assert stats.bootstrap_within_clusters(histograms, [0, 0.5, 0.7, 1]) == whole
    assert stats.bootstrap_over_clusters([1.0, 2.0, 4.0], [3, 3, 5]) == over
    stats.cluster_weights.cache_clear()


def test_no_extractible_sequence_still_has_an_upper_bound():
    expected = stats.wilson(0, 3000)
    assert stats.bootstrap_over_clusters([0, 0, 0], [1000] * 3, proportion=True) == expected
    assert stats.bootstrap_within_clusters([[1000, 0]] * 3, [0, 1], proportion=True) == expected
    assert stats.bootstrap_over_clusters([20], [100], proportion=True) == stats.wilson(20, 100)


def test_what_is_unknown_is_nan_and_never_of_width_zero():
    one = stats.bootstrap_over_clusters([2.5], [10])
    assert one.value == 0.25
    assert np.isnan(one.low)
    assert one.method == "none"
    same = stats.bootstrap_over_clusters([1.0, 2.0], [2, 4])
    assert (same.low, same.high) == (0.5, 0.5)
    assert same.method == "all equal"
    for nothing in (
        stats.bootstrap_over_clusters([], []),
        stats.bootstrap_over_clusters([0.0], [0]),
        stats.bootstrap_within_clusters(np.zeros((0, 2), int), [0, 1]),
        stats.bootstrap_within_clusters([[0, 0]], [0, 1]),
    ):
        assert np.isnan(nothing.value)
        assert nothing.n == 0


def test_shapes_are_checked():
    with pytest.raises(Analysis360Error, match=r"\(2,\) and \(3,\)"):
        stats.bootstrap_over_clusters([1, 2], [1, 2, 3])
    with pytest.raises(Analysis360Error, match="levels"):
        stats.bootstrap_within_clusters([[1, 2]], [0, 0.5, 1])
    with pytest.raises(Analysis360Error):
        stats.paired_difference([1, 2], [1, 2], [1])


@given(
    hnp.arrays(np.int64, st.tuples(st.integers(1, 6), st.integers(1, 5)), elements=st.integers(0, 40)),
    st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_intervals_hold_their_value_and_stay_in_range(histograms, seed):
    values = np.linspace(0, 1, histograms.shape[1]) if histograms.shape[1] > 1 else np.array([0.5])
    sums = histograms @ values
    for i in (
        stats.bootstrap_within_clusters(histograms, values, resamples=100, seed=seed, proportion=True),
        stats.bootstrap_over_clusters(
            sums, histograms.sum(axis=1), resamples=100, seed=seed, proportion=True
        ),
    ):
        assert i.n == histograms.sum()
        if i.n:
            assert i.value == pytest.approx(sums.sum() / histograms.sum())
            assert -1e-9 <= i.low <= i.high <= 1 + 1e-9


# --- pairs -----------------------------------------------------------------------------------------------------


def test_paired_difference_sees_what_two_means_cannot():
    rng = np.random.default_rng(3)
    hardness = rng.uniform(0, 1, 600)
    clusters = np.repeat([f"chunk {i}" for i in range(30)], 20)
    later = hardness + 0.02 + rng.normal(0, 0.02, 600)
    later[::7] = np.nan
    change = stats.paired_difference(hardness, later, clusters)
    assert change.n == np.isfinite(later).sum()
    assert change.value == pytest.approx(np.nanmean(later - hardness))
    assert change.low > 0.015
    assert change.high < 0.025
    back = stats.paired_difference(later, hardness, clusters)
    assert back.value == pytest.approx(-change.value)


def test_paired_difference_is_zero_within_its_interval_when_nothing_changes():
    rng = np.random.default_rng(4)
    covered = []
    for _ in range(300):
        shift = np.repeat(rng.normal(0, 0.1, 25), 8)
        a = rng.normal(0, 1, 200)
        i = stats.paired_difference(
            a, a + shift + rng.normal(0, 0.1, 200), np.repeat(np.arange(25), 8), resamples=400
        )
        covered.append(i.low <= 0 <= i.high)
    assert 0.91 < np.mean(covered) <= 0.99
