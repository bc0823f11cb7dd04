"""Tables against plain pandas on a made-up frame, and the rules about what counts as seen."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis360 import statistics, summaries
from analysis360.errors import Analysis360Error

_spec = importlib.util.spec_from_file_location(
    "synthetic_frame", Path(__file__).with_name("synthetic_frame.py")
)
synthetic_frame = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(synthetic_frame)
make_frame = synthetic_frame.make_frame


def grid_of(frame, length=32):
    return summaries.grid_of(frame, length)


WHOLE = {"train": 36, "held-out": 3}


@pytest.fixture(scope="module")
def frame():
    return make_frame()


def row(table, ckpt, group):
    found = table[(table["ckpt"] == ckpt) & (table["group"] == group)]
    assert len(found) == 1
    return found.iloc[0]


# --- summary ---------------------------------------------------------------------------------------------------


def test_summary_equals_pandas(frame):
    table = summaries.summary(grid_of(frame), WHOLE)
    assert list(table["ckpt"].cat.categories) == sorted(set(frame["ckpt"].astype(str)))
    part = frame[(frame["ckpt"] == "ckpt_016") & (frame["role"] == "train")]
    for group, exposures in (("trained text", 1), ("not yet trained", 0)):
        rows = part[part["exposures"] == exposures]
        got = row(table, "ckpt_016", group)
        assert got["sequences"] == len(rows)
        assert got["chunks"] == rows["chunk"].nunique()
        assert got["tokens"] == 16 * synthetic_frame.TOKENS_PER_CHUNK
        assert got["score_mean"] == pytest.approx(rows["score"].mean())
        assert got["extractible_share"] == pytest.approx(rows["extractible"].mean())
        assert got["score_in_document_mean"] == pytest.approx(rows["score_in_document"].mean())
        assert got["sequences_in_document"] == rows["score_in_document"].notna().sum()
    assert set(table["group"]) == set(summaries.GROUPS)
    assert (table["score_mean_low"] <= table["score_mean"]).all()
    assert (table["score_mean"] <= table["score_mean_high"]).all()
    assert table.filter(like="share").max().max() <= 1


def test_the_interval_follows_from_what_is_a_sample(frame):
    all_in = summaries.summary(grid_of(frame), WHOLE)
    assert row(all_in, "ckpt_016", "trained text")["score_interval"] == "bootstrap within chunks"
    assert row(all_in, "ckpt_016", "not yet trained")["score_interval"] == "bootstrap within chunks"
    assert row(all_in, "ckpt_016", "held-out text")["score_interval"] == "bootstrap within chunks"

    chosen = frame[(frame["role"] != "train") | (frame["chunk"].cat.codes % 3 == 0)]
    sample = summaries.summary(grid_of(chosen), {"train": 36, "held-out": 10})
    for group in ("trained text", "not yet trained", "held-out text"):
        assert row(sample, "ckpt_016", group)["score_interval"] == "bootstrap over chunks"

    one = frame[frame["chunk"].isin(["train_005", "held_1"])]
    single = row(summaries.summary(grid_of(one), WHOLE), "ckpt_020", "trained text")
    assert (single["score_interval"], single["extractible_interval"]) == (
        "bootstrap over sequences",
        "Wilson",
    )
    hits = frame[(frame["chunk"] == "train_005") & (frame["ckpt"] == "ckpt_020")]["extractible"]
    assert single["extractible_share_high"] == statistics.wilson(int(hits.sum()), len(hits)).high


def test_a_frame_of_the_seen_chunks_alone_is_complete_while_it_holds_every_one(frame):
    seen = frame[(frame["role"] != "train") | (frame["exposures"] >= 1)]
    seen = seen[seen["done"] <= 16]
    table = summaries.summary(grid_of(seen), WHOLE)
    assert row(table, "ckpt_016", "trained text")["score_interval"] == "bootstrap within chunks"
    without = summaries.summary(grid_of(seen[seen["chunk"] != "train_002"]), WHOLE)
    assert row(without, "ckpt_016", "trained text")["score_interval"] == "bootstrap over chunks"


def test_canaries_are_sequences_of_their_own(frame):
    got = row(summaries.summary(grid_of(frame), WHOLE), "ckpt_035", "canaries")
    rows = frame[(frame["ckpt"] == "ckpt_035") & (frame["role"] == "canary") & (frame["exposures"] >= 1)]
    assert got["sequences"] == len(rows)
    assert got["extractible_interval"] == "Wilson"
    never = row(summaries.summary(grid_of(frame), WHOLE), "ckpt_035", "never planted")
    assert never["sequences"] == 6
    assert never["extractible_share_high"] > 0


def test_unknown_exposure_is_neither_seen_nor_unseen():
    frame = make_frame(unknown=4)
    table = summaries.summary(grid_of(frame), WHOLE)
    last = row(table, "ckpt_035", "trained text")
    assert last["chunks"] == 31  # 36 less one unseen less four unknown
    assert last["score_interval"] == "bootstrap over chunks"
    groups = summaries.chunk_groups(grid_of(frame))
    assert groups.loc[groups["ckpt"] == "ckpt_035", "chunks"].sum() == 32
    assert summaries.correlations(grid_of(frame)).n.loc["ckpt_035", "ckpt_035"] == 31 * 40


def test_unscorable_sequences_are_left_out_and_order_does_not_matter(frame):
    holed = frame.copy()
    holed.loc[holed.index % 5 == 0, "score"] = np.nan
    table = summaries.summary(grid_of(holed), WHOLE)
    shuffled = summaries.summary(grid_of(holed.sample(frac=1, random_state=0)), WHOLE)
    counts = ["sequences", "chunks", "score_mean", "extractible_share"]
    pd.testing.assert_frame_equal(table[counts], shuffled[counts])
    kept = holed[(holed["ckpt"] == "ckpt_035") & (holed["role"] == "held-out")]["score"].notna().sum()
    assert row(table, "ckpt_035", "held-out text")["sequences"] == kept


def test_summary_names_what_is_missing(frame):
    with pytest.raises(Analysis360Error, match="lacks the columns exposures"):
        grid_of(frame.drop(columns="exposures"))
    with pytest.raises(Analysis360Error, match=r"holds 36 train chunks.*got 12"):
        summaries.summary(grid_of(frame), {"train": 12, "held-out": 3})
    with pytest.raises(Analysis360Error, match="held-out"):
        summaries.summary(grid_of(frame), {"train": 36})
    with pytest.raises(Analysis360Error, match="ordered Categorical"):
        grid_of(frame.assign(ckpt=frame["ckpt"].astype(str)))


# --- distribution ----------------------------------------------------------------------------------------------


def test_distribution_counts_every_seen_sequence_once(frame):
    table = summaries.distribution(grid_of(frame))
    assert len(table) == 9 * 33
    at = table[table["ckpt"] == "ckpt_020"]
    seen = frame[(frame["ckpt"] == "ckpt_020") & (frame["role"] == "train") & (frame["exposures"] >= 1)]
    expected = np.bincount(np.rint(seen["score"] * 32).astype(int), minlength=33)
    assert at["sequences"].tolist() == expected.tolist()
    assert at["share"].sum() == pytest.approx(1)
    assert (at["n"] == len(seen)).all()
    assert at["extractible_share"].iloc[0] == pytest.approx(seen["extractible"].mean())
    held = summaries.distribution(grid_of(frame), chunks="held-out")
    assert (held["n"] == 120).all()


def test_distribution_of_nothing_is_nan_and_l_is_checked(frame):
    early = frame[frame["role"] == "held-out"]
    table = summaries.distribution(grid_of(early))
    assert (table["n"] == 0).all()
    assert table["share"].isna().all()
    with pytest.raises(Analysis360Error, match="l = 7"):
        grid_of(frame, 7)
    with pytest.raises(Analysis360Error, match="got 'unseen'"):
        summaries.distribution(grid_of(frame), chunks="unseen")


# --- chunk groups ----------------------------------------------------------------------------------------------


def test_chunk_groups_follow_exposure_and_mark_the_latest(frame):
    table = summaries.chunk_groups(grid_of(frame))
    assert table["group"].nunique() == 10  # nine checkpoints and the chunk that none has seen
    latest = table[table["latest"]]
    assert (latest["group"].to_numpy() == latest["ckpt"].cat.codes.to_numpy()).all()
    assert len(latest) == 9
    assert table.loc[table["group"] == 9, "group_label"].unique().tolist() == [summaries.NOT_TRAINED]
    assert table.loc[table["group"] == 9, "group_tokens"].isna().all()
    got = table[(table["ckpt"] == "ckpt_016") & (table["group"] == 1)].iloc[0]
    rows = frame[
        (frame["ckpt"] == "ckpt_016") & (frame["first_seen"].between(5, 8)) & (frame["role"] == "train")
    ]
    assert got["sequences"] == len(rows) == 160
    assert got["chunks"] == 4
    assert got["score_mean"] == pytest.approx(rows["score"].mean())
    assert got["score_mean_low"] < got["score_mean"] < got["score_mean_high"]
    bare = summaries.chunk_groups(grid_of(frame), intervals=False)
    assert bare["score_mean_low"].isna().all()
    pd.testing.assert_series_equal(bare["score_mean"], table["score_mean"])


def test_a_group_without_sequences_is_not_the_latest(frame):
    chosen = frame[~frame["chunk"].isin([f"train_{c:03d}" for c in range(12, 16)])]
    table = summaries.chunk_groups(grid_of(chosen))
    at = table[(table["ckpt"] == "ckpt_016") & table["latest"]]
    assert at["group"].tolist() == [2]


# --- exposure --------------------------------------------------------------------------------------------------


def test_exposure_profile_recovers_a_known_recency():
    frame = make_frame(checkpoints=18, chunks=36, sequences=150, held_out=6)
    edges = np.array([0, 1, 4, 12, 36]) * synthetic_frame.TOKENS_PER_CHUNK
    table = summaries.exposure_profile(grid_of(frame), edges)
    assert set(table["baseline"]) == {"not yet trained", "held-out text"}
    for _, part in table.groupby("baseline"):
        assert part["score_difference"].iloc[0] == pytest.approx(0.13, abs=0.04)
        assert part["score_difference"].iloc[0] > part["score_difference"].iloc[-1]
        first = part.iloc[0]
        assert first["score_difference_low"] < first["score_difference"] < first["score_difference_high"]
        assert first["score_difference_low"] > 0


def test_exposure_profile_pools_differences_by_hand(frame):
    table = summaries.exposure_profile(grid_of(frame), [0, 1e30])
    train = frame[frame["role"] == "train"]
    total, n = 0.0, 0
    for _, part in train.groupby("ckpt", observed=True):
        seen, unseen = part[part["exposures"] >= 1], part[part["exposures"] == 0]
        total += (seen["score"] - unseen["score"].mean()).sum()
        n += len(seen)
    got = table[table["baseline"] == "not yet trained"].iloc[0]
    assert got["score_difference"] == pytest.approx(total / n, abs=1e-6)
    assert got["observations"] == n
    assert got["checkpoints"] == 9
    assert got["chunks"] == 35


def test_exposure_profile_covers_no_difference():
    covered = []
    for seed in range(40):
        frame = make_frame(checkpoints=3, chunks=12, sequences=20, held_out=12, canaries=1, seed=seed)
        rng = np.random.default_rng(seed)
        effect = rng.normal(0, 0.1, 40)[frame["chunk"].cat.codes]
        score = np.clip(0.5 + effect + rng.normal(0, 0.1, len(frame)), 0, 1)
        frame["score"] = np.rint(256 * score) / 256
        table = (
            summaries.exposure_profile(grid_of(frame, 256), [0, 1e30])
            .set_index("baseline")
            .loc["held-out text"]
        )
        covered.append(table["score_difference_low"] <= 0 <= table["score_difference_high"])
    assert np.mean(covered) > 0.85


def test_exposure_profile_bins(frame):
    table = summaries.exposure_profile(grid_of(frame), 4)
    assert table["observations"].sum() > 0
    assert table["tokens_since_low"].is_monotonic_increasing
    inside = table["tokens_since_mean"].between(table["tokens_since_low"], table["tokens_since_high"])
    assert inside.all()
    assert len(summaries.exposure_profile(grid_of(frame[frame["role"] == "held-out"]))) == 0
    with pytest.raises(Analysis360Error, match="ascending"):
        summaries.exposure_profile(grid_of(frame), [3, 2])
    with pytest.raises(Analysis360Error, match="at least 1"):
        summaries.exposure_profile(grid_of(frame), 0)


# --- canaries --------------------------------------------------------------------------------------------------


def test_canary_curves(frame):
    table = summaries.canary_curves(frame)
    assert len(table) == 9 * 9
    got = table[
        (table["ckpt"] == "ckpt_020") & (table["repeats"] == 64) & (table["spacing"] == "chunk")
    ].iloc[0]
    rows = frame[(frame["ckpt"] == "ckpt_020") & (frame["repeats"] == 64) & (frame["spacing"] == "chunk")]
    assert got["sequences"] == 6
    assert got["score_mean"] == pytest.approx(rows["score"].mean())
    assert got["exposures_mean"] == 64
    assert got["planted_first_tokens"] == pytest.approx(19 * synthetic_frame.TOKENS_PER_CHUNK)
    never = table[table["repeats"] == 0]
    assert (never["spacing"] == "never").all()
    assert never["planted_first_tokens"].isna().all()
    assert len(summaries.canary_curves(frame[frame["role"] == "train"])) == 0


def test_control_check_tells_chance_from_recall(frame):
    table = summaries.control_check(frame, 2000, 32)
    assert table["inside"].all()
    assert (table["tokens_scored"] == 6 * 32).all()
    leaked = frame.copy()
    leaked.loc[(leaked["repeats"] == 0) & (leaked["ckpt"] == "ckpt_035"), "score"] = np.float32(0.25)
    check = summaries.control_check(leaked, 2000, 32)
    assert check["inside"].tolist() == [True] * 8 + [False]
    assert check["hits"].iloc[-1] == 48
    assert len(summaries.control_check(frame[frame["role"] == "train"], 2000, 32)) == 0
    with pytest.raises(Analysis360Error):
        summaries.control_check(frame, 0, 32)


# --- correlations ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("over", ["seen", "all", "held-out"])
def test_correlations_equal_a_pandas_pivot(frame, over):
    chosen = frame[frame["role"] == ("held-out" if over == "held-out" else "train")]
    if over == "seen":
        chosen = chosen[chosen["exposures"] >= 1]
    matrix = chosen.pivot_table(index=["chunk", "position"], columns="ckpt", values="score", observed=True)
    got = summaries.correlations(grid_of(frame), over=over)
    np.testing.assert_allclose(got.r, matrix.corr(), atol=1e-6)
    known = matrix.notna().astype(int)
    assert (got.n.to_numpy() == (known.T @ known).to_numpy()).all()
    assert list(got.r.columns) == [str(c) for c in matrix.columns]
    assert got.phi_max is None


def test_correlations_of_the_extractible(frame):
    got = summaries.correlations(grid_of(frame), value="extractible")
    seen = frame[(frame["role"] == "train") & (frame["exposures"] >= 1)]
    a = seen[seen["ckpt"] == "ckpt_028"].set_index(["chunk", "position"])["extractible"]
    b = seen[seen["ckpt"] == "ckpt_035"].set_index(["chunk", "position"])["extractible"].reindex(a.index)
    share = (a & b).sum() / a.sum()
    assert got.conditional.loc["ckpt_028", "ckpt_035"] == pytest.approx(share)
    assert got.r.loc["ckpt_028", "ckpt_035"] == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert (got.r.to_numpy() <= got.phi_max.to_numpy() + 1e-9)[~got.r.isna().to_numpy()].all()


def test_correlations_refuse_two_runs_in_one_frame(frame):
    with pytest.raises(Analysis360Error, match="occurs twice"):
        grid_of(pd.concat([frame, frame]).astype({"ckpt": frame["ckpt"].dtype}))
    with pytest.raises(Analysis360Error, match="'prefix'"):
        summaries.correlations(grid_of(frame), value="prefix")


def test_an_empty_frame_gives_empty_tables(frame):
    empty = frame.iloc[:0]
    for table in (
        summaries.summary(grid_of(empty), WHOLE),
        summaries.distribution(grid_of(empty)),
        summaries.chunk_groups(grid_of(empty)),
        summaries.exposure_profile(grid_of(empty)),
        summaries.canary_curves(empty),
        summaries.control_check(empty, 2000, 32),
        summaries.correlations(grid_of(empty)).r,
    ):
        assert len(table) == 0
        assert {"ckpt", "baseline"} & {*table.columns, table.index.name}


# --- extractibility alone --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(frame):
    """The same rows without a score."""
    return frame.assign(score=np.float32(np.nan), score_in_document=np.float32(np.nan))


def test_a_frame_without_scores_gives_the_same_shares(frame, alone):
    tables = [
        lambda frame: summaries.summary(grid_of(frame), WHOLE),
        lambda frame: summaries.chunk_groups(grid_of(frame)),
        lambda frame: summaries.mean_scores(grid_of(frame), "held-out text"),
        lambda frame: summaries.canary_curves(frame),
    ]
    for table in tables:
        expected, found = table(frame), table(alone)
        shares = [name for name in expected.columns if "score" not in name and "in_document" not in name]
        pd.testing.assert_frame_equal(found[shares], expected[shares])
        assert "extractible_share" in shares
        assert found["score_mean"].isna().all()
    for over in ("seen", "all", "held-out"):
        expected, found = (summaries.correlations(grid_of(x), "extractible", over) for x in (frame, alone))
        pd.testing.assert_frame_equal(found.r, expected.r)
        pd.testing.assert_frame_equal(found.n, expected.n)


@pytest.mark.parametrize(
    "table",
    [
        lambda frame: summaries.distribution(grid_of(frame)),
        lambda frame: summaries.exposure_profile(grid_of(frame)),
        lambda frame: summaries.correlations(grid_of(frame)),
        lambda frame: summaries.control_check(frame, 2000, 32),
    ],
)
def test_what_is_made_of_scores_alone_asks_for_them(alone, table):
    with pytest.raises(Analysis360Error, match="run with --metric score"):
        table(alone)
