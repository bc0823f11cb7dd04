"""The store: content identity, reuse, side by side, read by anyone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_series import MakeSeries, save_llama

import analysis360 as a360
from analysis360.engines import INVARIANT, VllmOptions
from analysis360.engines.torch_engine import TorchEngine
from analysis360.errors import SelectionError, StoreError
from analysis360.places import LocalFolder
from analysis360.results import MemorizationResult
from analysis360.store import gaps

SHORT: dict[str, Any] = {"prompt_tokens": 8, "continuation_tokens": 12, "engine": "torch", "progress": False}


def score(series: Path, out: Path, ckpts: Any = ":", **options: Any) -> MemorizationResult:
    return a360.memorization(series, ckpts, out=out, **{**SHORT, **options})


def parts(out: Path) -> list[Path]:
    return sorted(out.glob("*/memorization/settings=*/ckpt=*/part-*.parquet"))


intervals = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda p: (min(p), max(p))))


@given(st.integers(0, 40), st.integers(0, 40), intervals)
def test_gaps_are_the_complement(start: int, stop: int, covered: list[tuple[int, int]]) -> None:
    held = {x for a, b in covered for x in range(a, b)}
    left = [x for a, b in gaps(start, stop, covered) for x in range(a, b)]
    assert left == [x for x in range(start, stop) if x not in held]


def test_a_second_run_computes_nothing_and_reads_the_same(small_series: Path, tmp_path: Path) -> None:
    first = score(small_series, tmp_path)
    files = {path: path.read_bytes() for path in parts(tmp_path)}
    second = score(small_series, tmp_path)
    assert first.report.computed == len(first) == 4 * (6 * 12 + 3)
    assert second.report.computed == 0
    assert second.report.stored == len(first)
    assert {path: path.read_bytes() for path in parts(tmp_path)} == files
    pd.testing.assert_frame_equal(first.frame(), second.frame())


def test_one_part_a_checkpoint_and_a_row_group_a_unit(small_series: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    score(small_series, tmp_path)
    assert len(parts(tmp_path)) == 4
    for part in parts(tmp_path):
        metadata = pq.read_metadata(part)
        assert metadata.num_row_groups == len(json.loads(metadata.metadata[b"analysis360"])["units"]) == 7


def test_overlapping_selections_share_units(small_series: Path, tmp_path: Path) -> None:
    assert score(small_series, tmp_path, "0:2", chunks="1:3").report.computed == 2 * (2 * 12 + 27)
    assert score(small_series, tmp_path, "1:3", chunks="0:2").report.computed == 12 + 1 * (2 * 12 + 27)
    whole = score(small_series, tmp_path)
    pd.testing.assert_frame_equal(whole.frame(), score(small_series, tmp_path / "fresh").frame())


def test_a_larger_panel_computes_only_what_is_new(small_series: Path, tmp_path: Path) -> None:
    small = score(small_series, tmp_path, sequences=5)
    large = score(small_series, tmp_path, sequences=11)
    assert large.report.computed == 4 * 6 * (11 - 5)
    again = score(small_series, tmp_path, sequences=5)
    assert again.report.computed == 0
    pd.testing.assert_frame_equal(small.frame(), again.frame())
    whole = score(small_series, tmp_path / "fresh", sequences=11)
    pd.testing.assert_frame_equal(large.frame(), whole.frame())


@pytest.mark.parametrize(
    "change",
    [
        {"prompt_tokens": 9},
        {"continuation_tokens": 11},
        {"seed": 1},
        {"dtype": "bfloat16"},
        {"compat": "analysis360"},
    ],
)
def test_results_of_other_settings_live_side_by_side(
    small_series: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    before = score(small_series, tmp_path, "0").frame()
    assert score(small_series, tmp_path, "0", **change).report.computed == 75
    assert len(list(tmp_path.glob("*/memorization/settings=*"))) == 2
    after = score(small_series, tmp_path, "0")
    assert after.report.computed == 0
    pd.testing.assert_frame_equal(before, after.frame())


def test_settings_are_written_beside_the_results(small_series: Path, tmp_path: Path) -> None:
    score(small_series, tmp_path, "0", seed=5)
    (file,) = tmp_path.glob("small/memorization/settings=*/_settings.json")
    stored = json.loads(file.read_text())
    assert (stored["prompt_tokens"], stored["seed"], stored["dtype"], stored["engine"]) == (
        8,
        5,
        "float32",
        "torch",
    )


def test_other_weights_under_the_same_name_are_never_mixed_in(
    make_series: MakeSeries, tmp_path: Path
) -> None:
    root = make_series(checkpoints=2, chunks=2)
    old = score(root, tmp_path)
    shutil.rmtree(root / "checkpoints/ckpt_001")
    save_llama(root / "checkpoints/ckpt_001", seed=99)
    new = score(root, tmp_path)
    assert new.report.computed == len(old) // 2
    fresh = score(root, tmp_path / "fresh")
    pd.testing.assert_frame_equal(new.frame(), fresh.frame())
    assert not np.array_equal(old.matrix().loc["ckpt_001"], new.matrix().loc["ckpt_001"])


def test_other_data_under_the_same_name_is_never_mixed_in(make_series: MakeSeries, tmp_path: Path) -> None:
    from small_series import write_rows

    root = make_series(checkpoints=1, chunks=2)
    score(root, tmp_path)
    write_rows(root / "train/train_001.jsonl", 12, seed=77)
    new = score(root, tmp_path)
    assert new.report.computed == 12
    pd.testing.assert_frame_equal(new.frame(), score(root, tmp_path / "fresh").frame())


def test_a_renamed_copy_of_the_weights_is_the_same_checkpoint(make_series: MakeSeries) -> None:
    root = make_series(checkpoints=2, chunks=1)
    shutil.copytree(root / "checkpoints/ckpt_000", root / "elsewhere")
    (root / "elsewhere/README.md").write_text("moved")
    series = a360.open_series(root)
    copy = a360.Checkpoint("elsewhere", 0, LocalFolder(root / "elsewhere"))
    assert copy.digest == series.checkpoints[0].digest != series.checkpoints[1].digest


def test_pandas_polars_and_duckdb_read_it_in_one_line(small_series: Path, tmp_path: Path) -> None:
    n = len(score(small_series, tmp_path))
    folder = tmp_path / "small" / "memorization"
    with_pandas = pd.read_parquet(folder)
    with_polars = pl.read_parquet(f"{folder}/**/*.parquet", hive_partitioning=True)
    with_duckdb = duckdb.sql(
        f"select * from read_parquet('{folder}/**/*.parquet', hive_partitioning = true)"
    ).df()
    for frame in (with_pandas, with_polars.to_pandas(), with_duckdb):
        assert len(frame) == n
        assert set(frame["ckpt"].astype(str)) == {f"ckpt_{i:03d}" for i in range(4)}
        assert {"series", "chunk", "position", "correct", "exact_prefix", "match"} <= set(frame.columns)
    correct = {int(frame["correct"].sum()) for frame in (with_pandas, with_polars.to_pandas(), with_duckdb)}
    assert len(correct) == 1


def test_a_leftover_temporary_file_is_no_result(small_series: Path, tmp_path: Path) -> None:
    n = len(score(small_series, tmp_path, "0"))
    (part,) = parts(tmp_path)
    (part.parent / ".part-9.parquet.abc.tmp").write_bytes(part.read_bytes()[:100])
    assert len(pd.read_parquet(tmp_path / "small" / "memorization")) == n
    assert score(small_series, tmp_path, "0").report.computed == 0


def test_a_part_written_twice_counts_once(small_series: Path, tmp_path: Path) -> None:
    first = score(small_series, tmp_path, "0")
    (part,) = parts(tmp_path)
    shutil.copy(part, part.with_name("part-99999999999999999999-copy.parquet"))
    pd.testing.assert_frame_equal(score(small_series, tmp_path, "0").frame(), first.frame())


def test_a_damaged_part_is_named(small_series: Path, tmp_path: Path) -> None:
    score(small_series, tmp_path, "0")
    (part,) = parts(tmp_path)
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(StoreError, match=part.name):
        score(small_series, tmp_path, "0")


def test_an_output_that_is_not_a_folder_is_refused(small_series: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("here first")
    with pytest.raises(StoreError, match="not writable"):
        score(small_series, blocked, "0")


def test_provenance_is_stored_and_a_mixture_is_said(
    small_series: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    score(small_series, tmp_path, "0")
    monkeypatch.setattr(a360, "__version__", "0.0.9")
    mixed = score(small_series, tmp_path, "0:2")
    table = mixed.provenance()
    assert {"checkpoint", "engine", "device", "machine", "python", "written"} <= set(table.columns)
    assert any("results mix analysis360s: 0.0.9; " in note for note in mixed.notes)


def test_modes_asked_of_rows_that_were_computed_without_them_are_said(
    small_series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def computing(mode: str, device: str) -> None:
        class Told(TorchEngine):
            def describe(self) -> dict[str, str]:
                return super().describe() | {"engine": f"vllm 1{mode}, torch", "device": device}

        monkeypatch.setattr("analysis360.api.open_engine", lambda kind, **_: Told(device="cpu"))

    def noted(ckpts: str, **asked: Any) -> list[str]:
        return [note for note in run(ckpts, **asked).notes if "mix" not in note]

    def run(ckpts: str, **asked: Any) -> MemorizationResult:
        return score(small_series, tmp_path, ckpts, engine="vllm", sequences=12, vllm=VllmOptions(**asked))

    monkeypatch.setattr("analysis360.selection.resolve_kind", lambda kind: kind)
    computing("", "cpu")
    assert noted("0") == []
    with pytest.raises(SelectionError, match="needs a GPU"):  # though all is stored
        run("0", batch_invariant=True)
    monkeypatch.setattr("analysis360.api.check_options", lambda *_: None)
    computing(INVARIANT, "2 x cpu")
    without = "75 of 150 sequences were computed without {}; another --out computes them anew"
    cpu = "the 2 parts of --tensor-parallel are processes that share the CPU"
    assert noted("0:2", batch_invariant=True) == [without.format("--batch-invariant")]
    assert noted("0:2", tensor_parallel=2) == [without.format("--tensor-parallel 2"), cpu]
    assert noted("1", tensor_parallel=2, batch_invariant=True) == [cpu]
    assert noted("0:2") == []


def test_weights_replaced_between_two_calls_are_seen(make_series: MakeSeries, tmp_path: Path) -> None:
    """In a notebook the same Series object outlives a retrained checkpoint."""
    series = a360.open_series(make_series(checkpoints=1, chunks=2))
    score(Path(series.where), tmp_path)
    old = a360.memorization(series, out=tmp_path, **SHORT)
    save_llama(Path(series.where) / "checkpoints/ckpt_000", seed=77)
    new = a360.memorization(series, out=tmp_path, **SHORT)
    assert (old.report.computed, new.report.computed) == (0, len(old))
    pd.testing.assert_frame_equal(new.frame(), score(Path(series.where), tmp_path / "fresh").frame())


def test_weights_that_change_during_the_run_are_not_stored(
    make_series: MakeSeries, tmp_path: Path, monkeypatch: Any
) -> None:
    from analysis360.engines.torch_engine import TorchEngine

    root = make_series(checkpoints=1, chunks=1)
    load = TorchEngine.load

    def load_and_lose(engine: TorchEngine, checkpoint: a360.Checkpoint) -> None:
        load(engine, checkpoint)
        save_llama(checkpoint.path, seed=78)

    monkeypatch.setattr(TorchEngine, "load", load_and_lose)
    with pytest.raises(a360.CheckpointError, match="changed since the run began"):
        score(root, tmp_path)
    assert not parts(tmp_path)


def test_the_digest_is_of_the_file_that_is_loaded(make_series: MakeSeries, tmp_path: Path) -> None:
    """A folder with a single file and an index: transformers loads the single file."""
    root = make_series(checkpoints=2, chunks=1)
    first, second = (root / f"checkpoints/ckpt_00{i}" for i in (0, 1))
    shutil.copy(first / "model.safetensors", second / "model-00001-of-00001.safetensors")
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "model-00001-of-00001.safetensors"}}
    (second / "model.safetensors.index.json").write_text(json.dumps(index))
    one, other = a360.open_series(root).checkpoints
    assert one.digest != other.digest
    assert score(root, tmp_path).report.computed == 2 * (3 * 12 + 3)


def test_what_a_kill_leaves_twice_is_removed(small_series: Path, tmp_path: Path) -> None:
    n = len(score(small_series, tmp_path, "0"))
    (part,) = parts(tmp_path)
    shutil.copy(part, part.with_name("part-00000000000000000000-interim.parquet"))
    assert len(pd.read_parquet(tmp_path / "small" / "memorization")) == 2 * n
    score(small_series, tmp_path, "0")
    assert parts(tmp_path) == [part]


def test_reading_beside_a_sweep_goes_on_when_a_part_is_replaced(small_series: Path, tmp_path: Path) -> None:
    first = score(small_series, tmp_path, "0")
    (part,) = parts(tmp_path)
    later = score(small_series, tmp_path, "0")
    part.rename(part.with_name("part-99999999999999999999-larger.parquet"))
    pd.testing.assert_frame_equal(later.frame(), first.frame())
    pd.testing.assert_frame_equal(later.matrix(), first.matrix())


def test_what_went_away_for_good_is_said(small_series: Path, tmp_path: Path) -> None:
    result = score(small_series, tmp_path, "0")
    (part,) = parts(tmp_path)
    part.unlink()
    with pytest.raises(StoreError, match=f"{part.name} changed 20 times"):
        result.matrix()


def test_rows_stored_later_do_not_join_an_open_result(small_series: Path, tmp_path: Path) -> None:
    """Neither their number nor their exposure would fit what was said of the result."""
    score(small_series, tmp_path, "0", sequences=5)
    half = score(small_series, tmp_path, "0", sequences=12, compute=False)
    score(small_series, tmp_path, "0", sequences=12)
    assert len(half) == len(half.frame()) == half.matrix().notna().to_numpy().sum() == 6 * 5 + 3


def test_a_part_of_a_part_is_read_by_its_row_groups(small_series: Path, tmp_path: Path) -> None:
    whole = score(small_series, tmp_path).matrix()
    some = score(small_series, tmp_path, "1:4", chunks="1:4:2", sequences=7, compute=False).matrix()
    assert some.shape == (3, 2 * 7 + 2 * 7 + 3)
    for chunk in ("train_001", "train_003", "held-out_001", "canaries"):
        n = some[chunk].shape[1]
        pd.testing.assert_frame_equal(some[chunk], whole.loc[some.index, chunk].iloc[:, :n])


def test_row_groups_need_not_be_units(small_series: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    first = score(small_series, tmp_path, "0")
    (part,) = parts(tmp_path)
    table = pq.read_table(part, partitioning=None)
    for size in (1000, 5):
        pq.write_table(table, part, row_group_size=size)
        again = score(small_series, tmp_path, "0", compute=False)
        pd.testing.assert_frame_equal(again.frame(), first.frame())
        some = score(small_series, tmp_path, "0", chunks="2", sequences=4, compute=False)
        assert some.matrix()["train_002"].equals(first.matrix()["train_002"].iloc[:, :4])


def test_reading_says_what_is_missing_and_writes_nothing(small_series: Path, tmp_path: Path) -> None:
    score(small_series, tmp_path, shard="0/2", sequences=4)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    half = score(small_series, tmp_path, sequences=12, compute=False)
    assert any("54 of 300 sequences are stored" in note for note in half.notes)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_parts_of_different_lengths_read_as_one_table(small_series: Path, tmp_path: Path) -> None:
    for length in (12, 30):
        score(small_series, tmp_path, "0", continuation_tokens=length)
    assert len(pd.read_parquet(tmp_path / "small" / "memorization")) == 150


def test_what_a_result_does_not_hold_is_refused_in_one_line(small_series: Path, tmp_path: Path) -> None:
    result = score(small_series, tmp_path, "0:2")
    with pytest.raises(SelectionError, match=r"matrix of 'foo': expected one of .*exact_prefix.*, repeats"):
        result.matrix("foo")
    with pytest.raises(SelectionError, match="matrix of 'source'"):
        result.matrix("source")
    with pytest.raises(SelectionError, match="expected one of score, extractible"):
        result.difference("ckpt_000", "ckpt_001", "exact_prefix")  # type: ignore[arg-type]
