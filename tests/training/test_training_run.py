"""What `run` makes: checkpoints that load, the same bits however it is stopped, a manifest."""

import hashlib
import itertools
import json
import math
import random
import shutil
import signal
import subprocess
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from training.batches import read_batches
from training.config import Rate, Recipe
from training.distributed import Processes
from training.metrics import spike
from training.model import llama_config
from training.rates import learning_rate
from training.recipes import amber_7b, micro, staged
from training.records import as_json
from training.series import read_recipe
from training.train import row_loss

Training = Callable[..., subprocess.CompletedProcess[str]]


MEASURED = ("seconds", "tokens_per_second", "mfu", "memory_mb")
HERE = Processes(0, 1, torch.device("cpu"), sharded=False, saving=None)


def metrics(out: Path) -> list[dict[str, Any]]:
    """The metrics, without what differs between runs."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in MEASURED} for line in lines]


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


@pytest.mark.parametrize("seed", [0, 1])
def test_runs_killed_at_any_step_end_with_the_same_bits(
    prepared: Path,
    trained: Path,
    start: Callable[..., subprocess.Popen[str]],
    finish: Callable[[Path], None],
    tmp_path: Path,
    seed: int,
) -> None:
    out = tmp_path / "micro"
    shutil.copytree(prepared, out)
    for lines in sorted(random.Random(seed).sample(range(1, micro().steps), 2)):
        code, _ = stop(start("run", "--out", out), out, lines, signal.SIGKILL)
        assert code == -signal.SIGKILL
        assert len(weights(out)) < micro().mix.chunks
    finish(out)
    same(out, trained)


@pytest.mark.parametrize(("with_signal", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_asked_to_stop_saves_the_step_and_goes_on_there(
    prepared: Path,
    trained: Path,
    start: Callable[..., subprocess.Popen[str]],
    finish: Callable[[Path], None],
    tmp_path: Path,
    with_signal: signal.Signals,
    code: int,
) -> None:
    out = tmp_path / "micro"
    shutil.copytree(prepared, out)
    stopped, error = stop(start("run", "--out", out), out, 10, with_signal)
    assert stopped == code
    *_, said = error.splitlines()
    assert said.startswith("stopped and saved; this goes on from here:")
    assert said.endswith(f"python -m training run --out {out}")
    assert "Traceback" not in error
    steps = len(metrics(out))
    assert 10 <= steps < micro().steps
    if within := steps % micro().chunk_steps:
        assert (out / f"state/ckpt_{steps // 6 - 1:03d}_step_{within}").is_dir()
    finish(out)
    assert metrics(out)[:steps] == metrics(trained)[:steps]
    same(out, trained)


def same(out: Path, other: Path) -> None:
    """Two runs that left the same, bit by bit."""
    assert weights(out) == weights(other)
    assert metrics(out) == metrics(other)
    assert (out / "series.toml").read_bytes() == (other / "series.toml").read_bytes()
    assert [state.name for state in (out / "state").iterdir()] == ["ckpt_005"]


def test_trained_twice_gives_the_same_bits(
    prepared: Path, trained: Path, finish: Callable[[Path], None], tmp_path: Path
) -> None:
    shutil.copytree(prepared, tmp_path / "again")
    finish(tmp_path / "again")
    same(tmp_path / "again", trained)


def test_a_checkpoint_lost_between_state_and_rename_is_written_again(
    prepared: Path, trained: Path, finish: Callable[[Path], None], tmp_path: Path
) -> None:
    out = tmp_path / "micro"
    shutil.copytree(trained, out)
    shutil.rmtree(out / "checkpoints/ckpt_005")
    (out / "checkpoints/.ckpt_005.partial").mkdir()
    manifest = (out / "series.toml").read_text().replace("count = 6", "count = 5", 1)
    (out / "series.toml").write_text(manifest)
    finish(out)
    same(out, trained)
    assert not (out / "checkpoints/.ckpt_005.partial").exists()


def test_states_of_every_nth_checkpoint_are_kept_when_asked(
    prepared: Path, trained: Path, finish: Callable[[Path], None], tmp_path: Path
) -> None:
    out = tmp_path / "micro"
    shutil.copytree(prepared, out)
    change(out, lambda recipe: replace(recipe, loop=replace(recipe.loop, keep_state_every=2)))
    finish(out)
    assert sorted(state.name for state in (out / "state").iterdir()) == ["ckpt_001", "ckpt_003", "ckpt_005"]
    for newer in ("state/ckpt_005", "checkpoints/ckpt_005", "checkpoints/ckpt_004"):
        shutil.rmtree(out / newer)
    (out / "series.toml").unlink()
    finish(out)  # from the state of ckpt_003
    assert weights(out) == weights(trained)


def change(out: Path, mend: Callable[[Recipe], Recipe]) -> None:
    """Change the recipe of a prepared folder."""
    recipe = read_recipe(out)
    assert recipe is not None
    (out / "recipe.json").write_text(json.dumps(as_json(mend(recipe))))


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
    batch = next(read_batches(trained / "data/train/train_003.jsonl", recipe.loop.batch, HERE))
    with torch.no_grad():
        loss = row_loss(model, batch.rows).item() / batch.targets
    assert loss == pytest.approx(metrics(trained)[3 * recipe.chunk_steps]["loss"], abs=1e-5)


def test_a_checkpoint_carries_the_tokenizer(trained: Path) -> None:
    text = "Enter HAMLET, reading.\n    import this\n"
    alone = AutoTokenizer.from_pretrained(trained / "tokenizer")
    carried = AutoTokenizer.from_pretrained(trained / "checkpoints/ckpt_000")
    assert carried(text).input_ids == alone(text).input_ids
    assert carried.decode(carried(text).input_ids) == text


def test_metrics_have_a_line_a_step(trained: Path) -> None:
    recipe = micro()
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(recipe.steps))
    assert [line["chunk"] for line in lines] == [step // recipe.chunk_steps for step in range(recipe.steps)]
    assert [line["position"] for line in lines] == [line["chunk"] for line in lines]
    assert {line["stage"] for line in lines} == {"all"}
    assert lines[-1]["tokens"] == recipe.mix.chunks * recipe.chunk_targets
    assert lines[0]["loss"] == pytest.approx(math.log(recipe.mix.vocabulary), abs=0.1)
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.5
    for line in lines:
        assert line["tokens_per_second"] == pytest.approx(8 * 128 / line["seconds"], rel=0.02)
        assert line["mfu"] is None or 0 < line["mfu"] <= 1  # of this series: other work may hide the peak
        assert 100 < line["memory_mb"] < 20_000
        assert line["gradient_norm"] > 0
    assert sum(line["mfu"] is not None for line in lines) > len(lines) / 2
    assert all(line["spike"] is None for line in lines[:20])
    assert all(abs(line["spike"]) < 20 for line in lines[20:])


def test_a_spike_stands_out_from_the_losses_before_it() -> None:
    before = [2.0 + 0.01 * (index % 5) for index in range(100)]
    assert spike(2.02, before) == pytest.approx(0, abs=0.1)
    found = spike(3.0, before)
    assert found is not None
    assert found == pytest.approx((3.0 - 2.02) / (1.4826 * 0.01), rel=0.01)
    assert spike(3.0, before[:19]) is None
    assert spike(3.0, [2.0] * 50) is None


def test_the_schedule_rises_and_falls_as_its_formula() -> None:
    recipe = micro()
    loop = replace(recipe.loop, rates=(Rate(peak=2e-3, last=2e-4, warm_up=10, steps=110),))
    recipe = replace(recipe, loop=loop)
    rates = [learning_rate(step, recipe) for step in range(120)]
    assert rates[:10] == pytest.approx([2e-4 * (step + 1) for step in range(10)])
    assert max(rates) == rates[9] == 2e-3
    assert rates[59] == pytest.approx((2e-3 + 2e-4) / 2)
    assert rates[34] == pytest.approx(2e-4 + 1.8e-3 * (2 + math.sqrt(2)) / 4)
    assert rates[109] == pytest.approx(2e-4)
    assert rates[119] == pytest.approx(2e-4)
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[9:110]))
    continued = replace(recipe, loop=replace(loop, rates=(replace(loop.rates[0], start=30),)))
    assert [learning_rate(step, continued) for step in range(80)] == rates[30:110]


def test_each_stage_has_a_schedule_of_its_own() -> None:
    recipe = staged()
    first, second, third = recipe.loop.rates
    assert [stage.chunks * recipe.chunk_steps for stage in recipe.mix.stages] == [48, 72, 24]
    assert learning_rate(9, recipe) == first.peak
    fall = (47 + 1 - 10) / (180 - 10)  # the first stage ends long before its schedule would
    assert learning_rate(47, recipe) == pytest.approx(first.peak - fall * (first.peak - first.last))
    assert learning_rate(48, recipe) == pytest.approx(second.peak / 10)
    assert learning_rate(119, recipe) == pytest.approx(second.last)
    assert learning_rate(121, recipe) == pytest.approx(third.peak)
    assert learning_rate(143, recipe) == pytest.approx(third.last)


def test_amber_is_the_papers() -> None:
    recipe = amber_7b()
    with torch.device("meta"):
        model = LlamaForCausalLM(llama_config(recipe.model, 2))
    shapes = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    assert sum(math.prod(shape) for shape in shapes.values()) == 6_738_415_616  # Table 3: 6.7 B
    assert shapes["model.embed_tokens.weight"] == shapes["lm_head.weight"] == (32000, 4096)
    assert shapes["model.layers.31.mlp.gate_proj.weight"] == (11008, 4096)
    assert shapes["model.layers.0.self_attn.q_proj.weight"] == (4096, 4096)
    config = model.config
    assert (config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads) == (32, 32, 32)
    assert (config.rms_norm_eps, config.max_position_embeddings) == (1e-6, 2048)
    mix, loop = recipe.mix, recipe.loop
    assert (mix.chunks, mix.rows, mix.row_tokens) == (360, 1_706_976, 2049)
    assert mix.chunks * mix.rows * mix.row_tokens == pytest.approx(1259.13e9, abs=5e6)  # Table 2
    shares = dict(zip((take.source for take in mix.stages[0].takes), mix.rows_of(mix.stages[0]), strict=True))
    table2 = {"arxiv": 30.00, "book": 28.86, "c4": 197.67, "refined-web": 665.01}
    table2 |= {"starcoder": 291.92, "stackexchange": 21.75, "wikipedia": 23.90}
    for name, billions in table2.items():
        assert shares[name] * mix.row_tokens / 1e9 == pytest.approx(billions, abs=0.02)
    assert (loop.batch, loop.betas, loop.weight_decay, loop.clip) == (2240, (0.9, 0.95), 0.1, 1.0)
    assert loop.compute_dtype == "bfloat16"
    assert recipe.chunk_steps == 763
    assert learning_rate(1999, recipe) == 3e-4
    assert learning_rate(999, recipe) == pytest.approx(1.5e-4)
    assert learning_rate((recipe.steps + 2000) // 2 - 1, recipe) == pytest.approx(1.65e-4)
    assert learning_rate(recipe.steps - 1, recipe) == pytest.approx(3e-5)


def test_the_manifest_describes_the_series(trained: Path) -> None:
    recipe = micro()
    series = tomllib.loads((trained / "series.toml").read_text())
    assert (series["manifest"], series["name"], series["model"]["compute_dtype"]) == (1, "micro", "float32")
    assert series["checkpoints"] == {"path": "checkpoints/ckpt_{index:03d}", "first": 0, "count": 6}
    assert series["data"]["rows"] == recipe.mix.rows
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
    change(out, lambda recipe: replace(recipe, loop=replace(recipe.loop, clip=0.5)))
    error = training("prepare", "--recipe", "micro", "--out", out, expect=1).stderr
    assert "loop.clip: expected 1.0, as asked, found 0.5" in error
    assert error.count("\n") == 1
    error = training("prepare", "--recipe", "tiny", "--out", prepared, expect=1).stderr
    assert "recipe.json: mix" in error
    stored = json.loads((out / "recipe.json").read_text())
    (out / "recipe.json").write_text(json.dumps(stored | {"colour": "red"}))
    error = training("run", "--out", out, expect=1).stderr
    assert "Recipe.colour" in error
    assert error.count("\n") == 1


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


def test_a_state_that_cannot_be_saved_is_one_line(prepared: Path, training: Training, tmp_path: Path) -> None:
    out = tmp_path / "micro"
    shutil.copytree(prepared, out)
    (out / "checkpoints").write_text("in the way")
    error = training("run", "--out", out, expect=1).stderr.splitlines()[-1]
    assert error.startswith(f"error: {out}: expected to save a state, found")
    assert "Traceback" not in error
    (out / "checkpoints").unlink()
    assert "6 checkpoints" in training("run", "--out", out).stdout


def test_an_unprepared_folder_names_the_first_step(training: Training, tmp_path: Path) -> None:
    error = training("run", "--out", tmp_path / "none", expect=1).stderr
    assert "python -m training prepare --recipe NAME --out" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("arguments", [(), ("run",), ("prepare", "--recipe", "none", "--out", "x")])
def test_wrong_arguments_end_with_two(training: Training, arguments: Sequence[str]) -> None:
    training(*arguments, expect=2)
