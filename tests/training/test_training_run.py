"""What `run` makes: checkpoints that load, the same bits however it is stopped, a manifest."""

import hashlib
import itertools
import json
import math
import shutil
import signal
import subprocess
import time
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from training.recipes import Loop, micro
from training.train import learning_rate, read_rows, row_loss

Training = Callable[..., subprocess.CompletedProcess[str]]


def metrics(out: Path) -> list[dict[str, Any]]:
    """The metrics, without the one number that differs between runs."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def weights(out: Path) -> dict[str, str]:
    files = sorted(out.glob("checkpoints/*/model.safetensors"))
    return {file.parent.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def stop(
    process: subprocess.Popen[str], out: Path, lines: int, with_signal: signal.Signals
) -> tuple[int, str]:
    """Send a run a signal when its metrics have so many lines: its exit code and what it said."""
    with process as run:
        path = out / "metrics.jsonl"
        while run.poll() is None and not (path.exists() and path.read_text().count("\n") >= lines):
            time.sleep(0.005)
        run.send_signal(with_signal)
        _, error = run.communicate()
    return run.returncode, error


def test_a_killed_and_an_interrupted_run_end_with_the_same_bits(
    prepared: Path,
    trained: Path,
    start: Callable[..., subprocess.Popen[str]],
    finish: Callable[[Path], None],
    tmp_path: Path,
) -> None:
    out = tmp_path / "micro"
    shutil.copytree(prepared, out)
    code, _ = stop(start("run", "--out", out), out, 9, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert 1 <= len(weights(out)) < micro().data.chunks
    code, error = stop(start("run", "--out", out), out, 15, signal.SIGINT)
    assert code == 130
    assert len(weights(out)) < micro().data.chunks
    assert error.splitlines()[-1].endswith(f"python -m training run --out {out}")
    assert "Traceback" not in error
    finish(out)
    assert weights(out) == weights(trained)
    assert metrics(out) == metrics(trained)
    assert (out / "series.toml").read_bytes() == (trained / "series.toml").read_bytes()
    assert sorted(file.name for file in (out / "optimizer").iterdir()) == ["opt_005.pt"]


def test_a_finished_run_does_nothing(trained: Path, training: Training) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    start = time.perf_counter()
    assert "already" in training("run", "--out", trained).stdout
    assert time.perf_counter() - start < 5  # not even torch is loaded
    assert before == {path: path.stat().st_mtime_ns for path in trained.rglob("*")}


def test_a_checkpoint_gives_the_loss_that_was_recorded(trained: Path) -> None:
    recipe = micro()
    model = LlamaForCausalLM.from_pretrained(trained / "checkpoints/ckpt_002")
    assert model.dtype == torch.float32
    batch = read_rows(trained / "data/train/train_003.jsonl")[: recipe.loop.batch]
    with torch.no_grad():
        loss = row_loss(model, batch).item()
    assert loss == pytest.approx(metrics(trained)[3 * recipe.chunk_steps]["loss"], abs=1e-5)


def test_a_checkpoint_carries_the_tokenizer(trained: Path) -> None:
    text = "Enter HAMLET, reading.\n    import this\n"
    alone = AutoTokenizer.from_pretrained(trained / "tokenizer")
    carried = AutoTokenizer.from_pretrained(trained / "checkpoints/ckpt_000")
    assert carried(text).input_ids == alone(text).input_ids
    assert carried.decode(carried(text).input_ids) == text


def test_metrics_have_a_line_a_step(trained: Path) -> None:
    recipe = micro()
    lines = metrics(trained)
    assert [line["step"] for line in lines] == list(range(recipe.steps))
    assert [line["chunk"] for line in lines] == [step // recipe.chunk_steps for step in range(recipe.steps)]
    assert lines[-1]["tokens"] == recipe.data.chunks * recipe.chunk_tokens
    assert lines[0]["loss"] == pytest.approx(math.log(recipe.data.vocabulary), abs=0.1)
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.5


def test_the_schedule_rises_and_falls_as_its_formula() -> None:
    loop = Loop(batch=8, peak=2e-3, warm_up=10)
    rates = [learning_rate(step, 110, loop) for step in range(110)]
    assert rates[:10] == pytest.approx([2e-4 * (step + 1) for step in range(10)])
    assert max(rates) == rates[9] == 2e-3
    assert rates[59] == pytest.approx((2e-3 + 2e-4) / 2)
    assert rates[34] == pytest.approx(2e-4 + 1.8e-3 * (2 + math.sqrt(2)) / 4)
    assert rates[-1] == pytest.approx(2e-4)
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[9:]))


def test_the_manifest_describes_the_series(trained: Path) -> None:
    recipe = micro()
    series = tomllib.loads((trained / "series.toml").read_text())
    assert (series["manifest"], series["name"], series["model"]["compute_dtype"]) == (1, "micro", "float32")
    assert series["checkpoints"] == {"path": "checkpoints/ckpt_{index:03d}", "first": 0, "count": 6}
    assert series["data"]["rows"] == recipe.data.rows
    assert series["data"]["row_tokens"] == 129
    assert series["exposure"] == {"order": [*range(6)], "done": [*range(1, 7)], "tokens_per_chunk": 48 * 128}
    for table in ("checkpoints", "data", "held_out"):
        for index in range(series[table]["count"]):
            assert (trained / series[table]["path"].format(index=index)).exists()
    report = json.loads((trained / "data/report.json").read_text())
    assert series["canaries"]["rows"] == report["canaries"]
    assert (trained / series["canaries"]["path"].format(index=0)).exists()


def test_another_recipe_is_refused_by_field(prepared: Path, training: Training, tmp_path: Path) -> None:
    out = tmp_path / "micro"
    shutil.copytree(prepared, out)
    stored = json.loads((out / "recipe.json").read_text())
    stored["loop"]["peak"] = 0.5
    (out / "recipe.json").write_text(json.dumps(stored))
    for name in ("run", "prepare"):
        error = training(name, "--out", out, expect=1).stderr
        assert "loop.peak: expected 0.003 (as in the code), found 0.5" in error
        assert error.count("\n") == 1
    error = training("prepare", "--recipe", "tiny", "--out", prepared, expect=1).stderr
    assert "expected a folder for tiny, found one for micro" in error


def test_changed_data_are_refused(prepared: Path, training: Training, tmp_path: Path) -> None:
    out = tmp_path / "micro"
    shutil.copytree(prepared, out)
    with (out / "data/train/train_004.jsonl").open("a") as file:
        file.write("{}\n")
    error = training("run", "--out", out, expect=1).stderr
    assert "train_004.jsonl: expected the file that was prepared" in error
    training("prepare", "--out", out)
    assert (out / "data/train/train_004.jsonl").read_bytes() == (
        prepared / "data/train/train_004.jsonl"
    ).read_bytes()


def test_an_unprepared_folder_names_the_first_step(training: Training, tmp_path: Path) -> None:
    error = training("run", "--out", tmp_path / "none", expect=1).stderr
    assert "python -m training prepare --out" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("arguments", [(), ("run",), ("prepare", "--recipe", "none", "--out", "x")])
def test_wrong_arguments_end_with_two(training: Training, arguments: Sequence[str]) -> None:
    training(*arguments, expect=2)
