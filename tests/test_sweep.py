"""The loop: killed at any moment it continues; shards add up; a bad checkpoint does not stop the others."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_series import MakeSeries, save_llama
from test_store import parts, score

import analysis360 as a360
from analysis360.engines.torch_engine import TorchEngine
from analysis360.errors import CheckpointError, SelectionError
from analysis360.parts import StoredData
from analysis360.places import LocalFolder
from analysis360.series import Checkpoint
from analysis360.sweep import TOGETHER, Progress, _together
from analysis360.tasks import Unit

# Every unit is written at once, so that a kill can fall anywhere between two parts.
EAGER = (
    "import analysis360.store as s, analysis360.cli as c; s.FLUSH_SECONDS = 0.0; raise SystemExit(c.main())"
)
COMMAND = [sys.executable, "-c", EAGER, "memorization", "--engine", "torch"]


def command(series: Path, out: Path, *more: str) -> list[str]:
    return [*COMMAND, "--series", str(series), "--out", str(out), *more]


def begun(out: Path) -> int:
    """Checkpoints of which something is stored."""
    return len({part.parent for part in parts(out)})


@pytest.fixture(scope="module")
def long_series(make_series: MakeSeries) -> Path:
    return make_series(checkpoints=8, chunks=8, rows=60, name="long")


def test_killed_again_and_again_it_ends_as_if_undisturbed(long_series: Path, tmp_path: Path) -> None:
    undisturbed = score(long_series, tmp_path / "calm", prompt_tokens=8, continuation_tokens=32)
    arguments = command(long_series, tmp_path / "killed", "--prompt-tokens", "8", "--quiet")
    kills = 0
    for _ in range(20):
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = begun(tmp_path / "killed")
        while process.poll() is None and begun(tmp_path / "killed") == before:
            time.sleep(0.01)
        if process.poll() is not None:
            break
        time.sleep(0.013 * (kills % 7))  # at different moments of the next checkpoint
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    assert process.wait() == 0
    assert kills >= 3
    stored = pd.read_parquet(tmp_path / "killed" / "long" / "memorization")
    assert not stored.duplicated(["ckpt", "chunk", "position"]).any()
    assert len(stored) == len(undisturbed)
    result = score(long_series, tmp_path / "killed", prompt_tokens=8, continuation_tokens=32)
    assert result.report.computed == 0
    pd.testing.assert_frame_equal(result.frame(), undisturbed.frame())


@pytest.mark.parametrize("interrupt", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_keeps_finished_units_and_says_how_to_go_on(
    long_series: Path, tmp_path: Path, interrupt: signal.Signals
) -> None:
    process = subprocess.Popen(
        command(long_series, tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not parts(tmp_path):
        time.sleep(0.01)
    process.send_signal(interrupt)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert "run the same command to go on" in errors
    assert "Traceback" not in errors
    stored = len(pd.read_parquet(tmp_path / "long" / "memorization"))
    again = subprocess.run(
        command(long_series, tmp_path, "--quiet"), capture_output=True, text=True, check=True
    )
    assert f"{stored:,} stored already" in again.stdout


def test_shards_add_up_to_the_whole(long_series: Path, tmp_path: Path) -> None:
    names = [[c.name for c in score(long_series, tmp_path, shard=f"{i}/5").checkpoints] for i in range(5)]
    assert sorted(name for shard in names for name in shard) == [f"ckpt_{i:03d}" for i in range(8)]
    whole = score(long_series, tmp_path)
    assert whole.report.computed == 0
    pd.testing.assert_frame_equal(whole.frame(), score(long_series, tmp_path / "fresh").frame())


@pytest.mark.parametrize("shard", ["5/5", "-1/5", "1", "a/b", "1/0"])
def test_a_malformed_shard_is_refused(small_series: Path, tmp_path: Path, shard: str) -> None:
    with pytest.raises(SelectionError, match="shard"):
        score(small_series, tmp_path, shard=shard)


def test_a_bad_checkpoint_is_named_last_and_the_others_are_stored(
    make_series: MakeSeries, tmp_path: Path
) -> None:
    root = make_series(checkpoints=3, chunks=2)
    (root / "checkpoints/ckpt_001/model.safetensors").write_bytes(b"not weights")
    with pytest.raises(CheckpointError, match="ckpt_001"):
        score(root, tmp_path)
    stored = pd.read_parquet(tmp_path / "small" / "memorization")
    assert set(stored["ckpt"].astype(str)) == {"ckpt_000", "ckpt_002"}
    save_llama(root / "checkpoints/ckpt_001", seed=50)
    assert score(root, tmp_path).report.computed == len(stored) // 2


def test_equal_checkpoints_are_computed_once_and_shown_twice(make_series: MakeSeries, tmp_path: Path) -> None:
    root = make_series(checkpoints=2, chunks=1)
    shutil.copy(
        root / "checkpoints/ckpt_000/model.safetensors", root / "checkpoints/ckpt_001/model.safetensors"
    )
    result = score(root, tmp_path)
    assert len(result) == 2 * result.report.computed
    matrix = result.matrix()
    assert matrix.loc["ckpt_000"].equals(matrix.loc["ckpt_001"])
    assert score(root, tmp_path, "1").report.computed == 0


def test_seen_scores_only_what_each_checkpoint_had_been_trained_on(
    small_series: Path, tmp_path: Path
) -> None:
    result = score(small_series, tmp_path, chunks="seen")
    frame = result.frame()
    train = frame[frame["role"] == "train"]
    assert (train["exposures"] == 1).all()
    assert train.groupby("ckpt", observed=True)["chunk"].nunique().tolist() == [1, 2, 3, 4]
    assert result.matrix().isna().to_numpy().sum() == (3 + 2 + 1) * 12


def test_exposure_is_joined_for_text_controls_and_canaries(small_series: Path, tmp_path: Path) -> None:
    frame = score(small_series, tmp_path).frame()
    at = frame.set_index(["ckpt", "chunk", "row"]).sort_index()
    assert at.loc[("ckpt_002", "train_001", 0), "exposures"] == 1
    assert at.loc[("ckpt_002", "train_001", 0), "tokens_since"] == 780
    assert at.loc[("ckpt_000", "train_001", 0), "exposures"] == 0
    assert pd.isna(at.loc[("ckpt_000", "train_001", 0), "tokens_since"])
    assert at.loc[("ckpt_003", "held-out_000", 0), "exposures"] == 0
    planted = [at.loc[(f"ckpt_{i:03d}", "canaries", 0), "exposures"] for i in range(4)]
    assert planted == [1, 1, 2, 2]
    assert [at.loc[(f"ckpt_{i:03d}", "canaries", 1), "exposures"] for i in range(4)] == [0, 2, 2, 2]
    assert at.loc[("ckpt_003", "canaries", 0), "tokens_since"] == 780
    assert at.loc[("ckpt_003", "canaries", 2), "exposures"] == 0
    assert at.loc[("ckpt_003", "canaries", 1), "planted_first"] == 2


def test_the_matrix_is_the_frame_unfolded(small_series: Path, tmp_path: Path) -> None:
    result = score(small_series, tmp_path)
    matrix = result.matrix("score")
    for line in result.frame().sample(50, random_state=0).itertuples():
        assert matrix.loc[line.ckpt, (line.chunk, line.position)] == line.score


def test_a_chunk_with_fewer_sequences_than_asked_gives_all_and_says_so(
    small_series: Path, tmp_path: Path
) -> None:
    result = score(small_series, tmp_path, "0", sequences=50)
    assert len(result) == 75
    assert any("fewer than 50 sequences (12)" in note for note in result.notes)


def test_reading_without_computing_starts_no_engine(small_series: Path, tmp_path: Path) -> None:
    with pytest.raises(a360.StoreError, match="no results of these settings"):
        a360.memorization(small_series, out=tmp_path, compute=False, engine="torch")
    assert not tmp_path.joinpath("small", "memorization").exists()


def test_differences_are_paired_by_sequence(small_series: Path, tmp_path: Path) -> None:
    result = score(small_series, tmp_path)
    difference = result.difference("ckpt_000", "ckpt_003")
    matrix = result.matrix()["train_000"]  # the one chunk that both had been trained on
    assert difference.n == matrix.shape[1] == 12
    assert difference.value == pytest.approx(
        (matrix.loc["ckpt_003"] - matrix.loc["ckpt_000"]).mean(), abs=1e-6
    )


def test_a_missing_shard_does_not_stop_the_others(make_series: MakeSeries, tmp_path: Path) -> None:
    root = make_series(checkpoints=3, chunks=1)
    (root / "checkpoints/ckpt_001/model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"ckpt_001: no model\.safetensors"):
        score(root, tmp_path)
    stored = pd.read_parquet(tmp_path / "small" / "memorization")
    assert set(stored["ckpt"].astype(str)) == {"ckpt_000", "ckpt_002"}


@pytest.mark.parametrize("change", [{"vocab_size": 64}, {"num_attention_heads": 4}])
def test_another_model_is_refused_even_when_asked_alone(
    make_series: MakeSeries, tmp_path: Path, change: dict[str, int]
) -> None:
    root = make_series(checkpoints=2, chunks=1)
    save_llama(root / "checkpoints/ckpt_001", seed=1, **change)
    with pytest.raises(CheckpointError, match=r"ckpt_001: config has .* not the same model"):
        score(root, tmp_path, "1")
    assert not parts(tmp_path)


def test_sequences_longer_than_the_model_reads_are_refused(small_series: Path, tmp_path: Path) -> None:
    with pytest.raises(SelectionError, match="100 \\+ 30 tokens; the model reads 128"):
        score(small_series, tmp_path, prompt_tokens=100, continuation_tokens=30)


def test_the_frame_of_one_checkpoint_is_its_part_of_the_whole(small_series: Path, tmp_path: Path) -> None:
    result = score(small_series, tmp_path)
    whole = result.frame()
    part = whole[whole["ckpt"] == "ckpt_002"].reset_index(drop=True)
    pd.testing.assert_frame_equal(result.frame("ckpt_002"), part, check_categorical=False)


def test_metrics_cut_short_are_read_and_damaged_ones_named(make_series: MakeSeries, tmp_path: Path) -> None:
    root = make_series(checkpoints=1, chunks=1)
    manifest = (root / "series.toml").read_text()
    (root / "series.toml").write_text(
        manifest.replace('name = "small"', 'name = "small"\nmetrics = "m.jsonl"')
    )
    result = score(root, tmp_path)
    (root / "m.jsonl").write_text('{"step": 0, "loss": 2.0}\n{"step": 1, "lo')
    assert len(result.metrics()) == 1
    (root / "m.jsonl").write_text('{"step": 0, "lo\n{"step": 1, "loss": 2.0}\n')
    with pytest.raises(a360.DataError, match=r"m\.jsonl line 1"):
        result.metrics()


@given(st.lists(st.tuples(st.integers(1, 2 * TOGETHER), st.sampled_from([1, 1, 20, 600])), max_size=40))
def test_units_are_handed_over_whole_in_order_and_by_the_hundred(sizes: list[tuple[int, int]]) -> None:
    checkpoint, data = Checkpoint("ckpt_000", 0, LocalFolder(Path())), StoredData("data", "digest")
    units = [Unit(checkpoint, data, 0, size, weight) for size, weight in sizes]
    groups = list(_together(units))
    assert [unit for group in groups for unit in group] == units
    sequences = [[len(unit) * unit.weight for unit in group] for group in groups]
    for some in sequences[:-1]:
        assert sum(some) >= TOGETHER
    for some in sequences:
        assert sum(some[:-1]) < TOGETHER


def test_the_report_says_where_the_time_went(
    small_series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait, load = 0.3, TorchEngine.load

    def slow(self: TorchEngine, checkpoint: Checkpoint) -> None:
        time.sleep(wait)
        load(self, checkpoint)

    monkeypatch.setattr(TorchEngine, "load", slow)
    began = time.monotonic()
    report = score(small_series, tmp_path).report
    whole, spent = time.monotonic() - began, report.seconds
    loads = len(a360.open_series(small_series).checkpoints)
    assert spent["load"] >= wait * loads
    # The first load comes before the engine's first work; all later ones leave it idle.
    assert wait * (loads - 1) <= spent["idle"] <= report.working < whole
    assert spent["idle"] + spent["generate"] == pytest.approx(report.working)
    line = report.line()
    for name in ("start", "download", "load", "generate", "write", "idle"):
        assert f"{name} {spent[name]:.1f} s" in line
    assert f"({spent['idle'] / report.working:.0%})" in line


def test_without_a_terminal_each_checkpoint_is_a_plain_line(small_series: Path, tmp_path: Path) -> None:
    asked = command(small_series, tmp_path, "--prompt-tokens", "8", "--continuation-tokens", "12")
    done = subprocess.run(asked, capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert [line.split(" sequences, ")[0] for line in lines] == [
        f"ckpt_{i:03d}: {75 * (i + 1)} of 300" for i in range(4)
    ]
    for line in lines:
        assert re.fullmatch(r".* sequences, \d\d:\d\d, about \d\d:\d\d left", line)
    assert lines[-1].endswith("about 00:00 left")
    shutil.rmtree(tmp_path / "small")
    quiet = subprocess.run([*asked, "--quiet"], capture_output=True, text=True, check=True)
    assert quiet.stderr == ""


def test_a_long_checkpoint_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress(100) as shown:
        shown.begin("ckpt_007")
        shown.update(10)
        assert capsys.readouterr().err == ""
        monkeypatch.setattr("analysis360.sweep.EVERY", -1.0)
        shown.update(10)
    assert capsys.readouterr().err.startswith("ckpt_007: 20 of 100 sequences, 00:00, about 00:0")
