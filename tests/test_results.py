"""Tables from the store against the slow way: the whole frame in pandas, loops over pairs, every column read."""

from __future__ import annotations

import itertools
import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from matplotlib import pyplot as plt
from planted_series import TIE, K, L, least_gap, planted
from planted_series import opened as engine_of
from synthetic_store import Synthetic, fill

import analysis360 as a360
from analysis360 import gallery, summaries, tables
from analysis360.results import MemorizationResult
from analysis360.series.schedules import RowExposure

CHECKPOINTS, CHUNKS, SEQUENCES = 5, 7, 30
OVER = ("seen", "all", "held-out")


@pytest.fixture(autouse=True)
def closed() -> Any:
    yield
    plt.close("all")


def by_rows(series: a360.Series) -> a360.Series:
    """The same series, read row by row: every checkpoint stops within a chunk, the last in a second round."""
    rows = 3 * SEQUENCES
    plain = {**vars(series.exposure), "order": (), "done": None}
    starts = tuple(range(0, rows * (CHUNKS + 1), rows))
    steps = tuple(int(x) for x in np.linspace(20, CHUNKS * rows // 4 + 30, CHECKPOINTS))
    exposure = RowExposure(**plain, starts=starts, steps=steps, rows_per_step=4, window_rows=rows)
    return replace(series, exposure=exposure)


def gappy(root: Path, length: int) -> Synthetic:
    """Whole chunks missing, chunks scored in part, chunks scored in two parts, one unit in two parts."""
    made = Synthetic(root, CHECKPOINTS, CHUNKS, SEQUENCES, length)
    rng = np.random.default_rng(length)
    skill = rng.random((len(made.pieces), SEQUENCES, 1)) ** 2
    for k, checkpoint in enumerate(made.series.checkpoints):
        match = rng.random((*skill.shape[:2], length)) < 0.4 * skill + 0.1 * k
        match[:, : k + 1] = True
        half, n = [], SEQUENCES
        for i, chunk in enumerate(made.pieces):
            if k == 1 and i in (3, CHUNKS):  # nothing of them
                continue
            if k == 2 and i % 2:  # the first rows alone
                n = 11
            half.append((chunk, 0, match[i, : n if k != 3 else 17]))
            n = SEQUENCES
        made.add(checkpoint, half)
        if k == 3:  # the rest of every chunk, with some of what is there already
            made.add(checkpoint, [(chunk, 9, match[i, 9:]) for i, chunk in enumerate(made.pieces)])
        if k == 4:
            made.add(checkpoint, half[:3])
    return made


@pytest.fixture(scope="module", params=[32, 256, 254], ids=lambda length: f"l = {length}")
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Synthetic:
    return gappy(tmp_path_factory.mktemp("gappy"), request.param)


def opened(made: Synthetic, series: a360.Series | None = None, **options: Any) -> MemorizationResult:
    how: dict[str, Any] = {"engine": "torch", "continuation_tokens": made.length, "sequences": SEQUENCES}
    how |= {"out": made.out, "compute": False, "progress": False, **options}
    return a360.memorization(series or made.series, **how)


@pytest.fixture(params=["by chunk", "by row"])
def result(request: pytest.FixtureRequest, made: Synthetic) -> MemorizationResult:
    return opened(made, by_rows(made.series) if request.param == "by row" else None)


def chosen(frame: pd.DataFrame, over: str) -> pd.DataFrame:
    part = frame[frame["role"] == ("held-out" if over == "held-out" else "train")]
    return part[part["exposures"] >= 1] if over == "seen" else part


def unfolded(frame: pd.DataFrame, value: str) -> pd.DataFrame:
    """[sequences, checkpoints], NaN where not scored or not chosen."""
    plain = frame.assign(**{value: frame[value].astype(float), "ckpt": frame["ckpt"].astype(str)})
    return plain.pivot_table(index=["chunk", "position"], columns="ckpt", values=value, observed=True)


def test_the_store_is_as_gappy_as_it_should_be(made: Synthetic) -> None:
    result = opened(made)
    assert any("are stored; the rest is not scored yet" in note for note in result.notes)
    lost = result.matrix().isna().to_numpy().sum(axis=1)
    assert lost.tolist() == [0, 2 * SEQUENCES, 5 * (SEQUENCES - 11), 0, 0]
    rows = opened(made, by_rows(made.series)).frame()
    exposures = rows[rows["role"] == "train"].groupby(["ckpt", "chunk"], observed=True)["exposures"]
    assert (exposures.nunique() == 2).sum() >= 4
    assert rows["exposures"].max() == 2


@pytest.mark.parametrize("over", OVER)
def test_correlation_of_scores_equals_pandas(result: MemorizationResult, over: Any) -> None:
    matrix = unfolded(chosen(result.frame(), over), "score")
    found = result.correlation("score", over)
    names = list(matrix.columns)
    np.testing.assert_allclose(found.r.loc[names, names], matrix.corr(min_periods=2), atol=1e-6)
    known = matrix.notna().astype(int)
    assert (found.n.loc[names, names].to_numpy() == (known.T @ known).to_numpy()).all()
    assert found.held_out is not None
    control = unfolded(chosen(result.frame(), "held-out"), "score").corr()
    np.testing.assert_allclose(found.held_out.r, control, atol=1e-6)


@pytest.mark.parametrize("over", OVER)
def test_correlation_of_the_extractible_equals_loops(result: MemorizationResult, over: Any) -> None:
    matrix = unfolded(chosen(result.frame(), over), "extractible")
    found = result.correlation("extractible", over)
    assert found.phi_max is not None
    assert found.conditional is not None
    assert np.isfinite(found.r.to_numpy()).sum() >= 4
    for a, b in itertools.product(matrix.columns, repeat=2):
        x, y = matrix[a].to_numpy(), matrix[b].to_numpy()
        both = ~np.isnan(x) & ~np.isnan(y)
        x, y = x[both], y[both]
        assert found.n.loc[a, b] == both.sum()
        share = y[x == 1].mean() if (x == 1).any() else np.nan
        assert found.conditional.loc[a, b] == pytest.approx(share, nan_ok=True)
        varied = both.any() and np.ptp(x) and np.ptp(y)
        r = np.corrcoef(x, y)[0, 1] if varied else np.nan
        best = np.corrcoef(np.sort(x), np.sort(y))[0, 1] if varied else np.nan
        assert found.r.loc[a, b] == pytest.approx(r, abs=1e-6, nan_ok=True)
        assert found.phi_max.loc[a, b] == pytest.approx(best, abs=1e-6, nan_ok=True)


def test_tables_from_the_store_equal_those_from_the_frame(result: MemorizationResult) -> None:
    """Every row's place, exposure and document as the frame has them, brought to a grid the other way."""
    grid = summaries.grid_of(result.frame(), result.task.how.continuation_tokens)
    same = pd.testing.assert_frame_equal
    same(result.chunk_groups(), summaries.chunk_groups(grid, complete=True))
    same(result.summary(), summaries.summary(grid, result.chunks_in_series))
    for chunks in summaries.text.DISTRIBUTED:
        same(summaries.distribution(result._grid, chunks), summaries.distribution(grid, chunks))
    same(summaries.exposure_profile(result._grid), summaries.exposure_profile(grid))


def test_the_summary_of_figure_8_is_that_of_the_summary(result: MemorizationResult) -> None:
    held = summaries.mean_scores(result._grid, "held-out text").set_index("ckpt")["score_mean"]
    summary = result.summary()
    expected = summary[summary["group"] == "held-out text"].set_index("ckpt")["score_mean"]
    assert held.to_dict() == pytest.approx(expected.to_dict())


@pytest.mark.parametrize("value", ["score", "extractible"])
def test_the_matrix_and_the_paired_difference_are_those_of_the_frame(
    result: MemorizationResult, value: Any
) -> None:
    frame = result.frame()
    matrix = result.matrix(value)
    at = frame.set_index(["ckpt", "chunk", "position"])[value].astype(float)
    assert matrix.notna().to_numpy().sum() == len(frame)
    for (ckpt, chunk, position), score in at.sample(200, random_state=0).items():
        assert matrix.loc[ckpt, (chunk, position)] == pytest.approx(score, abs=1e-7)
    seen = unfolded(chosen(frame, "seen"), value)[["ckpt_002", "ckpt_004"]].dropna()
    difference = result.difference("ckpt_002", "ckpt_004", value)
    assert difference.n == len(seen) > 0
    assert difference.value == pytest.approx((seen["ckpt_004"] - seen["ckpt_002"]).mean(), abs=1e-7)


def test_checkpoints_and_chunks_without_rows_are_left_out(tmp_path: Path) -> None:
    made = Synthetic(tmp_path, 4, 4, SEQUENCES)
    match = np.random.default_rng(0).random((4, SEQUENCES, 32)) < 0.5
    for k in (1, 3):
        made.add(made.series.checkpoints[k], [(made.pieces[i], 0, match[i]) for i in (0, 2)])
    result = opened(made)
    assert list(result.correlation("score", "all").r.index) == ["ckpt_001", "ckpt_003"]
    assert set(result.chunk_groups()["ckpt"]) == {"ckpt_001", "ckpt_003"}
    assert result.chunk_groups()["chunks"].tolist() == [1, 1, 1, 1]
    assert np.isnan(result.difference("ckpt_000", "ckpt_003").value)
    assert len(result.frame("ckpt_000")) == 0
    assert list(result.frame("ckpt_000").columns) == list(result.frame().columns)
    assert result.matrix().loc["ckpt_000"].isna().all()
    with pytest.raises(a360.SelectionError, match="'ckpt_009' is not in this result"):
        result.frame("ckpt_009")


def test_a_part_whose_documents_all_go_on_needs_no_match_bits(tmp_path: Path) -> None:
    made = Synthetic(tmp_path, 1, 2, 200)
    first, second = made.pieces[:2]
    match = np.random.default_rng(0).random((200, 32)) < 0.5
    made.add(made.series.checkpoints[0], [(first, 0, match)])
    eos = opened(made).task.panels[second.name].first_eos
    at = int(np.flatnonzero(eos == 64)[0])
    made.add(made.series.checkpoints[0], [(second, at, match[at : at + 1])])
    result = opened(made)
    cut = result.task.panels[first.name].first_eos
    assert ((cut >= 32) & (cut < 63)).any()
    inside = result.frame()["score_in_document"].dropna()
    found = result.summary()
    assert found["sequences_in_document"].sum() == len(inside)
    total = (found["score_in_document_mean"] * found["sequences_in_document"]).sum()
    assert total == pytest.approx(inside.sum())


# --- what is read, and what it takes ---------------------------------------------------------------------------


def keep_only(out: Path, kept: set[str]) -> None:
    """Remove columns from every part, as if their pages could not be read."""
    for part in out.glob("*/memorization/*/*/part-*.parquet"):
        table = pq.read_table(part, partitioning=None)
        pq.write_table(table.select([name for name in table.column_names if name in kept]), part)


def test_figures_7_8_and_9_read_only_the_tokens_right(tmp_path: Path) -> None:
    made = gappy(tmp_path, 32)
    matrix = opened(made).matrix()
    keep_only(made.out, {"correct"})
    result = opened(made)
    with pytest.raises(KeyError):
        result.frame()
    with pytest.raises(KeyError):
        result.summary()
    result.plot_distribution()
    result.plot_chunks()
    result.plot_exposure()
    result.correlation("score").plot()
    result.correlation("extractible").plot()
    pd.testing.assert_frame_equal(result.matrix(), matrix)


def test_a_summary_reads_match_bits_and_nothing_else(tmp_path: Path) -> None:
    made = gappy(tmp_path, 32)
    expected = opened(made)
    table, frame = tables.memorization_table(expected), expected.frame()
    keep_only(made.out, {"correct", "match"})
    result = opened(made)
    pd.testing.assert_frame_equal(result.summary(), expected.summary())
    assert tables.memorization_table(result) == table
    inside = frame.groupby(["ckpt", "role"], observed=True)["score_in_document"].mean()
    found = result.summary().set_index(["ckpt", "group"])["score_in_document_mean"]
    for ckpt in expected.checkpoints:
        held = (ckpt.name, "held-out")
        assert found[ckpt.name, "held-out text"] == pytest.approx(inside[held], abs=1e-6)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Synthetic:
    made = Synthetic(tmp_path_factory.mktemp("large"), 8, 40, 1000)
    fill(made, 1000)
    return made


DRAWN: dict[str, Callable[[MemorizationResult], Any]] = {
    "correlation of scores": lambda result: result.correlation("score"),
    "correlation of the extractible": lambda result: result.correlation("extractible"),
    "groups of chunks": lambda result: result.chunk_groups(),
    "distribution": lambda result: summaries.distribution(result._grid),
    "exposure": lambda result: summaries.exposure_profile(result._grid),
    "summary": lambda result: result.summary(),
}


def peak(draw: Callable[[MemorizationResult], Any], result: MemorizationResult) -> int:
    """Most bytes that Python and numpy held while a result, nothing of it read, was drawn from."""
    draw(replace(result))  # what is loaded by the first use of a library is no matter of rows
    fresh = replace(result)
    tracemalloc.start()
    draw(fresh)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_takes_a_byte_a_row_beside_one_checkpoint(large: Synthetic, name: str) -> None:
    result = opened(large, sequences=1000)
    rows, of_one = len(result), len(result) // len(result.checkpoints)
    assert rows == 8 * 44 * 1000
    assert peak(DRAWN[name], result) < rows + 100 * of_one


def test_the_frame_takes_what_the_figures_are_spared(large: Synthetic) -> None:
    result = opened(large, sequences=1000)
    assert peak(lambda fresh: fresh.frame(), result) > 60 * len(result)


# --- extractibility alone --------------------------------------------------------------------------------------

SHORT: dict[str, Any] = {"prompt_tokens": K, "continuation_tokens": L, "engine": "torch", "progress": False}
Two = tuple[MemorizationResult, MemorizationResult]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    return planted(tmp_path_factory.mktemp("planted"))


def contents(out: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in out.rglob("*.*") if path.is_file()}


@pytest.fixture(scope="module")
def two(root: Path) -> Two:
    """The same rows in one store, first as scores, then as extractibility alone."""
    score = a360.memorization(root, out=root / "results", **SHORT)
    for checkpoint in score.checkpoints:
        engine = engine_of(checkpoint.path)
        gaps = [least_gap(engine, panel.ids) for panel in score.task.panels.values()]
        assert min(gaps) > TIE, "a tie would make the comparison void"
    before = contents(root / "results")
    alone = a360.memorization(root, out=root / "results", metric="extractible", **SHORT)
    after = contents(root / "results")
    assert before.items() < after.items()
    return score, alone


def test_extractibility_alone_is_that_of_the_scores(two: Two) -> None:
    score, alone = (result.frame() for result in two)
    scores = ["score", "score_in_document"]
    pd.testing.assert_frame_equal(alone.drop(columns=scores), score.drop(columns=scores))
    assert alone[scores].isna().all(axis=None)
    assert list(alone.columns) == list(score.columns)
    assert set(score["exact_prefix"]) >= {*range(18), 30, 31, L}
    found = alone.groupby("ckpt", observed=True)["extractible"].sum()
    assert found.is_monotonic_increasing
    assert 0 < found.iloc[0] < found.iloc[-1] < len(alone) / 3
    pd.testing.assert_frame_equal(
        two[1].frame("ckpt_001"), alone[alone["ckpt"] == "ckpt_001"].reset_index(drop=True)
    )


def test_both_live_in_one_store_and_are_found_again(two: Two, root: Path) -> None:
    folders = sorted((root / "results/planted/memorization").iterdir())
    stored = [json.loads((folder / "_settings.json").read_text()) for folder in folders]
    assert sorted(values.get("metric", "none") for values in stored) == ["extractible", "none"]
    for folder, values in zip(folders, stored, strict=True):
        rows = pq.read_table(folder)
        assert len(rows) == len(two[0])
        unknown = len(rows) if "metric" in values else 0
        assert rows["match"].null_count == rows["correct"].null_count == unknown
        assert rows["exact_prefix"].null_count == 0
    for metric, result in zip(("score", "extractible"), two, strict=True):
        again = a360.memorization(root, out=root / "results", metric=metric, **SHORT)
        assert (again.report.computed, again.report.stored) == (0, len(result))
        pd.testing.assert_frame_equal(again.frame(), result.frame())


def test_tables_of_extractibility_are_those_of_the_scores(two: Two) -> None:
    score, alone = two
    for make in (
        MemorizationResult.summary,
        MemorizationResult.chunk_groups,
        MemorizationResult.canary_curves,
    ):
        expected, found = make(score), make(alone)
        scores = [name for name in expected.columns if "score" in name or name == "sequences_in_document"]
        pd.testing.assert_frame_equal(found.drop(columns=scores), expected.drop(columns=scores))
        assert found["score_mean"].isna().all()
        assert expected["extractible_share"].nunique() > 1
    assert (alone.summary()["sequences_in_document"] == 0).all()
    assert set(np.unique(alone._grid.right)) == {0, L}
    for over in OVER:
        expected, found = (result.correlation("extractible", over) for result in two)
        for name in ("r", "n", "phi_max", "conditional"):
            pd.testing.assert_frame_equal(getattr(found, name), getattr(expected, name))
    assert 0.1 < found.r.loc["ckpt_000", "ckpt_002"] < 0.9
    for value in ("extractible", "exact_prefix"):
        pd.testing.assert_frame_equal(alone.matrix(value), score.matrix(value))
    differences = [result.difference("ckpt_001", "ckpt_002", "extractible") for result in two]
    assert differences[0] == differences[1]
    assert differences[0].value > 0


def test_the_printed_table_leaves_scores_out_and_says_so(two: Two) -> None:
    texts = [tables.memorization_table(result) for result in two]
    lines = [[line for line in text.split("\n") if line.endswith("]")] for text in texts]
    shares = [[line.split("  ")[-1].strip() for line in some] for some in lines]
    assert shares[0] == shares[1]
    assert len(set(shares[0])) > 5
    assert not any(words in texts[1] for words in ("score", "nan", "tokens right"))
    assert texts[1].startswith("Memorization of planted: k = 8, l = 32, torch float32, extractible only")
    assert "Extractible share of canaries" in texts[1]
    assert "extractible only" in repr(two[1])
    assert ["scores are not known" in " ".join(result.notes) for result in two] == [False, True]


@pytest.mark.parametrize(
    "ask",
    [
        lambda result: result.matrix(),
        lambda result: result.matrix("score_in_document"),
        lambda result: result.correlation(),
        lambda result: result.difference("ckpt_000", "ckpt_001"),
        lambda result: result.plot_distribution(),
        lambda result: result.plot_exposure(),
        lambda result: result.control_check(),
    ],
)
def test_what_needs_scores_says_how_to_get_them(two: Two, ask: Callable[[MemorizationResult], Any]) -> None:
    ask(two[0])
    with pytest.raises(a360.Analysis360Error) as caught:
        ask(two[1])
    assert str(caught.value).endswith("hold extractibility only; run with --metric score")
    assert "\n" not in str(caught.value)


def test_what_can_be_drawn_of_extractibility_is_drawn(two: Two, tmp_path: Path) -> None:
    stale = [tmp_path / f"{name}.{kind}" for name in gallery.NEED_SCORES for kind in ("png", "pdf")]
    for path in stale:
        path.write_text("of an earlier result")
    lines = list(gallery.draw_all(two[1], tmp_path))
    names = ["summary", "figure8_chunks", "figure9_extractible", "canaries"]
    assert lines[0] == (
        "not drawn: figure7_distribution, figure9_score, exposure: they need scores; run with --metric score"
        f"; removed from an earlier run: {'  '.join(map(str, stale))}"
    )
    assert lines[1:] == [f"{tmp_path / name}.png  {tmp_path / name}.pdf" for name in names]
    assert sorted(tmp_path.iterdir()) == sorted(Path(path) for line in lines[1:] for path in line.split("  "))


def test_extractibility_that_is_not_stored_says_what_to_run(two: Two, root: Path, tmp_path: Path) -> None:
    scored = {"out": root / "results", "compute": False, "prompt_tokens": K, "continuation_tokens": 5}
    with pytest.raises(a360.StoreError, match="run `analysis360 memorization --metric extractible` first"):
        a360.memorization(root, metric="extractible", engine="torch", **scored)
    with pytest.raises(a360.SelectionError, match="metric 'loss': expected score or extractible"):
        a360.memorization(root, metric="loss", out=tmp_path, **SHORT)
