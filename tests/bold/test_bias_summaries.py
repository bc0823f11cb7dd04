"""Means and gaps by a bootstrap over titles: as a slow loop has them, joint, calibrated, silent where they must be."""

from __future__ import annotations

import itertools
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from analysis360.errors import Analysis360Error
from analysis360.statistics import cluster_weights, holm, percentile_bounds, percentile_interval, wilson
from analysis360.summaries.biases import LEAST_TITLES, Cells, Gaps, Means, estimate

Floats = NDArray[np.float64]
quick = settings(deadline=None, database=None, max_examples=60)
chances = st.lists(st.one_of(st.floats(0, 1), st.just(float("nan"))), max_size=8)


@quick
@given(chances)
def test_holm_is_the_procedure(p: list[float]) -> None:
    found = holm(p)
    known = sorted((value, i) for i, value in enumerate(p) if value == value)
    least = 0.0
    for rank, (value, i) in enumerate(known):
        least = max(least, min(1.0, value * (len(known) - rank)))
        assert found[i] == pytest.approx(least)
    assert np.isnan([found[i] for i, value in enumerate(p) if value != value]).all()


def test_holm_rejects_what_stepping_down_does() -> None:
    p = np.array([0.01, 0.04, 0.03, 0.005])
    assert holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # his own steps: 4, 3, 2, 1 times


@quick
@given(st.integers(0, 2**32), st.lists(st.integers(0, 9), min_size=1, max_size=6))
def test_many_columns_are_as_one_by_one(seed: int, clusters: list[int]) -> None:
    draws = np.random.default_rng(seed).normal(size=(50, len(clusters)))
    draws[draws > 1.5] = np.nan
    low, high = percentile_bounds(draws, clusters)
    for i, m in enumerate(clusters):
        one = percentile_interval(0.0, draws[:, i], 50, clusters=m)
        np.testing.assert_allclose([low[i], high[i]], [one.low, one.high])


def test_columns_that_do_not_fit_are_named() -> None:
    with pytest.raises(Analysis360Error, match=r"got shapes \(3,\) and \(1,\)"):
        percentile_bounds(np.zeros(3), [3])


def lines(sizes: dict[str, list[int]], shared: int = 0) -> tuple[list[str], list[str]]:
    """Groups and titles of lines: of each group titles with so many lines; the first `shared` are in all groups."""
    groups, titles = [], []
    for group, counts in sizes.items():
        for i, n in enumerate(counts):
            groups += [group] * n
            titles += [f"both {i}" if i < shared else f"{group} {i}"] * n
    return groups, titles


def told(
    groups: list[str], titles: list[str], values: Floats, *, share: bool = False, resamples: int = 400
) -> tuple[Cells, Means, Gaps]:
    """From [checkpoints, lines] values."""
    cells, cell = Cells.of(groups, titles)
    known = ~np.isnan(values)
    sums = np.array([np.bincount(cell[k], v[k], len(cells)) for v, k in zip(values, known, strict=True)])
    counts = np.array([np.bincount(cell[k], minlength=len(cells)) for k in known])
    return cells, *estimate(cells, sums, counts.astype(float), share=share, resamples=resamples)


def slow_draws(groups: list[str], titles: list[str], values: Floats, group: str, resamples: int) -> Floats:
    """[resamples] the group's mean over titles drawn anew from all of the domain, line by line."""
    order = list(dict.fromkeys(titles))
    weights = cluster_weights(len(order), resamples)
    draws = []
    for row in weights:
        drawn = [
            value
            for g, t, value in zip(groups, titles, values, strict=True)
            for _ in range(int(row[order.index(t)]))
            if g == group and value == value
        ]
        draws.append(np.mean(drawn) if drawn else np.nan)
    return np.array(draws)


def test_means_gaps_and_bounds_are_those_of_a_slow_loop() -> None:
    groups, titles = lines({"a": [3, 1, 2, 1, 4, 1], "b": [2, 2, 1, 1, 3], "c": [1] * 6}, shared=2)
    values = np.random.default_rng(0).normal(size=(2, len(groups)))
    values[1, ::4] = np.nan
    cells, means, gaps = told(groups, titles, values, resamples=60)
    assert cells.groups == ("a", "b", "c")
    draws = {
        (g, k): slow_draws(groups, titles, values[k], g, 60)
        for g, k in itertools.product(cells.groups, range(2))
    }
    for i, k in itertools.product(range(3), range(2)):
        own = values[k][np.array(groups) == cells.groups[i]]
        assert means.value[i, k] == pytest.approx(np.nanmean(own))
        assert means.n[i, k] == (~np.isnan(own)).sum()
        told_of = {
            t for g, t, v in zip(groups, titles, values[k], strict=True) if g == cells.groups[i] and v == v
        }
        assert means.titles[i, k] == len(told_of)
        if len(told_of) >= LEAST_TITLES:
            one = percentile_interval(0, draws[cells.groups[i], k], 1, clusters=len(told_of))
            assert [means.low[i, k], means.high[i, k]] == pytest.approx([one.low, one.high])
        else:
            assert np.isnan(means.low[i, k])
    for (a, b), gap, low in zip(gaps.pairs, gaps.gap, gaps.low, strict=True):
        assert gap == pytest.approx(means.value[a] - means.value[b])
        for k in range(2):
            fewer = int(min(means.titles[a, k], means.titles[b, k]))
            if fewer >= LEAST_TITLES:
                apart = draws[cells.groups[a], k] - draws[cells.groups[b], k]
                assert low[k] == pytest.approx(percentile_interval(0, apart, 1, clusters=fewer).low)
            else:
                assert np.isnan(low[k])
                assert np.isnan(gaps.p[gaps.pairs.index((a, b)), k])


def test_below_five_titles_nothing_is_said_of_sureness() -> None:
    groups, titles = lines({"one": [29], "four": [3] * 4, "five": [2] * 5})
    _, means, gaps = told(groups, titles, np.random.default_rng(1).normal(size=(1, len(groups))))
    assert np.isfinite(means.value).all()
    assert np.isnan(means.low[:2]).all()
    assert np.isfinite(means.low[2]).all()
    assert np.isnan(gaps.p).all()
    assert np.isnan(gaps.high).all()


def test_what_groups_share_is_no_gap() -> None:
    """The same titles in both groups: whatever titles are like, the difference of 1 is sure."""
    groups, titles = lines({"a": [2] * 20, "b": [2] * 20}, shared=20)
    of_title = np.random.default_rng(2).normal(0, 10, 20).repeat(2)
    values = np.concatenate([of_title + 1, of_title])[None] + np.random.default_rng(3).normal(0, 0.1, 80)
    _, means, gaps = told(groups, titles, values)
    assert (means.high - means.low > 5).all()
    assert gaps.high[0, 0] - gaps.low[0, 0] < 0.2
    assert gaps.p[0, 0] < 1e-6
    apart = lines({"a": [2] * 20, "b": [2] * 20})
    assert told(*apart, values)[2].p[0, 0] > 0.5


def test_checkpoints_are_drawn_together() -> None:
    groups, titles = lines({"a": [1] * 12, "b": [1] * 12})
    values = np.random.default_rng(4).normal(size=24)
    _, means, gaps = told(groups, titles, np.array([values, values, values + 3]))
    assert means.low[:, 0].tolist() == means.low[:, 1].tolist()
    assert means.low[:, 2] == pytest.approx(means.low[:, 0] + 3)
    assert gaps.p[0] == pytest.approx([gaps.p[0, 0]] * 3)


def test_shares_of_all_or_none_have_bounds_and_means_that_never_vary_have_none() -> None:
    groups, titles = lines({"all": [2] * 6, "none": [3] * 8})
    values = np.array([[float(group == "all") for group in groups]])
    _, means, gaps = told(groups, titles, values, share=True)
    full, empty = wilson(6, 6), wilson(0, 8)
    assert [means.low[0, 0], means.high[0, 0]] == [full.low, 1.0]
    assert [means.low[1, 0], means.high[1, 0]] == [0.0, empty.high]
    # Newcombe's tenth method, written out
    assert gaps.low[0, 0] == pytest.approx(1 - np.sqrt((1 - full.low) ** 2 + empty.high**2))
    assert gaps.high[0, 0] == 1.0
    assert gaps.p[0, 0] == pytest.approx(2 / comb(14, 6))
    _, means, gaps = told(groups, titles, values)
    assert np.isnan([means.low, means.high]).all()
    assert np.isnan(gaps.low[0, 0])
    assert gaps.gap[0, 0] == 1
    assert told(groups, titles, np.ones((1, len(groups))))[2].p[0, 0] == 1


def test_intervals_hold_the_truth_and_p_is_uniform_without_a_gap() -> None:
    """Titles that differ, lines of a title alike, unequal groups: 95 % of intervals hold, 5 % of p are below 0.05."""
    draws = np.random.default_rng(5)
    trials = 300
    groups, titles = lines({"a": [4, 1, 2] * 5, "b": [1, 3] * 5})
    number = {title: i for i, title in enumerate(dict.fromkeys(titles))}
    of_line = np.array([number[title] for title in titles])
    values = draws.normal(0, 1, (trials, len(number)))[:, of_line] + draws.normal(
        0, 0.5, (trials, len(titles))
    )
    _, means, gaps = told(groups, titles, values, resamples=1000)
    held = float(((means.low <= 0) & (means.high >= 0)).mean())
    apart = float(((gaps.low <= 0) & (gaps.high >= 0)).mean())
    low = float((gaps.p < 0.05).mean())
    assert 0.92 < held < 0.99
    assert 0.92 < apart <= 1
    assert 0.01 < low < 0.08


def rare(share: float, trials: int, seed: int, apart: float = 0.0) -> tuple[Means, Gaps]:
    """Groups as unequal as professions are; in the last one `share` + `apart` of texts count, titles alike."""
    draws = np.random.default_rng(seed)
    groups, titles = lines({"a": [9] * 60, "b": [2] * 30, "c": [1, 4] * 6, "d": [3] * 20})
    number = {title: i for i, title in enumerate(dict.fromkeys(titles))}
    rate = np.array([share + apart * (group == "d") for group in groups])
    of_title = draws.gamma(2, 0.5, (trials, len(number)))[:, [number[title] for title in titles]]
    values = (draws.random((trials, len(titles))) < rate * of_title).astype(float)
    _, means, gaps = told(groups, titles, values, share=True, resamples=500)
    return means, gaps


@pytest.mark.parametrize("share", [0.01, 0.03, 0.2])
def test_shares_of_few_texts_are_no_gaps(share: float) -> None:
    """Where nothing differs, some gap of a checkpoint holds at most one time in twenty, however rare what counts."""
    means, gaps = rare(share, 400, seed=6)
    assert (means.value == 0).mean() > 0.1 or share > 0.03
    wrong = (np.array([holm(p) for p in gaps.p.T]) < 0.05).any(axis=1).mean()
    assert wrong < 0.065
    held = ((gaps.low <= 1e-9) & (gaps.high >= -1e-9)).mean()
    assert held > 0.92


def test_a_share_that_differs_is_still_found() -> None:
    _, gaps = rare(0.02, 200, seed=7, apart=0.4)
    of_d = [i for i, pair in enumerate(gaps.pairs) if 3 in pair]
    corrected = np.array([holm(p) for p in gaps.p.T])
    assert (corrected[:, of_d] < 0.05).mean() > 0.9


def test_a_mean_that_never_varies_borrows_the_doubt_of_the_other() -> None:
    groups, titles = lines({"flat": [1] * 6, "other": [1] * 24})
    values = np.array([[0.0] * 6 + list(np.random.default_rng(8).normal(0.5, 1, 24))])
    _, means, gaps = told(groups, titles, values)
    spread = np.std(values[0, 6:])
    assert np.isnan(gaps.low[0, 0])
    z = means.value[1, 0] / (spread * np.sqrt(1 / 6 + 1 / 24))
    assert 2 * stats.t.sf(z, 5) == pytest.approx(gaps.p[0, 0], rel=0.3)
    assert gaps.p[0, 0] > 0.1
