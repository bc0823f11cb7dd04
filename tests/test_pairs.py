"""Correlations from blocks without gaps against pandas, loops, and sums under masks."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from analysis360.pairs import EXACT, Pairs, Shared, pearson, phi, stretch, whole_blocks

GAP = 255


def collected(x, gap=GAP, most=None):
    """What a matrix of integers with gaps gives."""
    pairs = Pairs(len(x), int(x[x != gap].max(initial=1)) if most is None else most)
    for present, block in whole_blocks(x, gap):
        pairs.add(present, block)
    return pairs.shared()


def masked(x, gap=GAP):
    """The same sums the plain way: each pair of rows over the columns both have."""
    there = (x != gap).astype(np.int64)
    filled = np.where(there, x, 0).astype(np.int64)
    return Shared(there @ there.T, filled @ there.T, filled**2 @ there.T, filled @ filled.T)


def same(found, expected):
    for name, table in expected._asdict().items():
        np.testing.assert_array_equal(getattr(found, name), table, err_msg=name)


few = st.sampled_from([GAP, *range(9)])
matrices = hnp.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(0, 30)), elements=few)


@given(matrices)
@settings(max_examples=150, deadline=None)
def test_blocks_give_the_same_sums_as_masks(x):
    same(collected(x), masked(x))


@given(matrices)
@settings(max_examples=80, deadline=None)
def test_blocks_hold_every_value_once_and_no_gap(x):
    held = np.zeros(len(x), np.int64)
    for present, block in whole_blocks(x, GAP):
        assert present.any()
        assert block.shape[0] == present.sum()
        assert (block != GAP).all()
        held[present] += block.shape[1]
    assert held.tolist() == (x != GAP).sum(axis=1).tolist()


@given(matrices)
@settings(max_examples=80, deadline=None)
def test_pearson_equals_pandas(x):
    shared = collected(x)
    r, frame = pearson(shared), pd.DataFrame(np.where(x == GAP, np.nan, x).T)
    for i in range(len(x)):
        for j in range(len(x)):
            both = (frame[[i, j]] if i != j else frame[[i]]).dropna()
            assert shared.n[i, j] == len(both)
            if len(both) < 2 or (both.max() == both.min()).any():
                assert np.isnan(r[i, j])
            else:
                assert r[i, j] == pytest.approx(frame[i].corr(frame[j]), abs=1e-6)


@pytest.mark.parametrize(
    ("most", "dtype"), [(1, np.uint8), (32, np.uint8), (254, np.uint8), (256, np.uint16)]
)
def test_sums_are_exact_beyond_what_single_precision_holds(most, dtype):
    """Every value as large as it can be, in more columns than one exact product may have."""
    columns = 3 * (EXACT // most**2) + 7 if most > 1 else 5000
    x = np.full((3, min(columns, 60_000)), most, dtype)
    x[0, ::3] -= 1
    gap = int(np.iinfo(dtype).max)
    x[1, 5:9] = gap
    same(collected(x, gap, most), masked(x, gap))


def test_many_columns_with_gaps_of_few_kinds_equal_pandas():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 257, (12, 5000)).astype(np.uint16)
    gap = int(np.iinfo(x.dtype).max)
    x[3], x[4] = 128, x[5]
    for i in range(12):
        x[i, 300 * i : 300 * i + 170 * (i % 4)] = gap
    shared = collected(x, gap)
    expected = pd.DataFrame(np.where(x == gap, np.nan, x).T).corr(min_periods=2).to_numpy(copy=True)
    expected[3] = expected[:, 3] = np.nan
    np.testing.assert_allclose(pearson(shared), expected, atol=1e-6)
    assert pearson(shared)[4, 5] == pytest.approx(1)


def test_a_row_far_from_zero_loses_nothing():
    x = np.array([[253, 254, 253, 254, 254], [4, 5, 7, 3, 3]], np.uint8)
    assert pearson(collected(x))[0, 1] == pytest.approx(np.corrcoef(x)[0, 1], abs=1e-12)


@given(
    hnp.arrays(
        np.uint8, st.tuples(st.integers(1, 5), st.integers(1, 25)), elements=st.sampled_from([0, 1, GAP])
    )
)
@settings(max_examples=80, deadline=None)
def test_phi_equals_brute_force(x):
    shared = collected(x)
    tables = phi(shared)
    for i, a in enumerate(x):
        for j, b in enumerate(x):
            there = (a != GAP) & (b != GAP)
            left, right = a[there], b[there]
            assert shared.n[i, j] == there.sum()
            given_i = right[left == 1]
            expected = given_i.mean() if len(given_i) else np.nan
            assert tables.conditional[i, j] == pytest.approx(expected, nan_ok=True)
            if np.ptp(left) if len(left) else 0:
                assert np.isnan(tables.phi[i, j]) == (np.ptp(right) == 0)
            if not np.isnan(tables.phi[i, j]):
                assert tables.phi[i, j] == pytest.approx(np.corrcoef(left, right)[0, 1])
                # the most alike arrangement with the same rates: both sorted
                best = np.corrcoef(np.sort(left), np.sort(right))[0, 1]
                assert tables.phi_max[i, j] == pytest.approx(best)
                assert tables.phi[i, j] <= tables.phi_max[i, j] + 1e-9


def test_phi_of_bools():
    pairs = Pairs(2, 1)
    pairs.add(np.ones(2, bool), np.array([[True, False, False, True], [True, False, False, False]]))
    tables = phi(pairs.shared())
    assert tables.conditional[0, 1] == 0.5
    assert tables.conditional[1, 0] == 1
    assert tables.phi[0, 1] == pytest.approx(tables.phi_max[0, 1]) == pytest.approx(1 / np.sqrt(3))


def test_rows_that_follow_one_another_are_a_view():
    x = np.arange(12).reshape(4, 3)
    assert np.shares_memory(x, x[stretch(np.array([False, True, True, False]))])
    assert stretch(np.array([True, False, True])).tolist() == [0, 2]
