"""One process and two: the same losses, the same batches, states that either can go on from."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch._dynamo.utils import counters
from transformers import LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from training.batches import read_batches
from training.config import Recipe
from training.distributed import Processes, processes
from training.model import llama_config, new_model
from training.recipes import micro
from training.records import as_json
from training.series import read_recipe

REPOSITORY = Path(__file__).resolve().parents[2]


def torchrun(out: Path, count: int = 2) -> subprocess.Popen[str]:
    """Training in several processes, as a user would start it."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count)]
    command += ["-m", "training", "run", "--out", str(out)]
    pipe = subprocess.PIPE
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=REPOSITORY, stdout=pipe, stderr=pipe, text=True, env=environment, start_new_session=True
    )


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def weights(out: Path, name: str = "ckpt_005") -> dict[str, torch.Tensor]:
    return load_file(out / "checkpoints" / name / "model.safetensors")


def change(out: Path, mend: Callable[[Recipe], Recipe]) -> None:
    recipe = read_recipe(out)
    assert recipe is not None
    (out / "recipe.json").write_text(json.dumps(as_json(mend(recipe))))


def close(left: list[dict[str, Any]], right: list[dict[str, Any]], tolerance: float) -> None:
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        for name in ("step", "chunk", "tokens", "learning_rate"):
            assert one[name] == other[name]
        assert one["loss"] == pytest.approx(other["loss"], abs=tolerance)
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=100 * tolerance)


def test_two_processes_have_the_losses_of_one(prepared: Path, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "micro"
    shutil.copytree(prepared, out)
    with torchrun(out) as run:
        said, error = run.communicate()
    assert run.returncode == 0, error
    assert said.count("6 checkpoints") == 1  # one process speaks
    close(lines(out), lines(trained), 2e-5)
    for name, tensor in weights(out).items():
        assert torch.allclose(tensor, weights(trained)[name], atol=2e-4), name
    LlamaForCausalLM.from_pretrained(out / "checkpoints/ckpt_003")
    assert (out / "series.toml").read_bytes() == (trained / "series.toml").read_bytes()


def test_one_process_goes_on_where_two_were_stopped(
    prepared: Path, trained: Path, finish: Callable[[Path], None], tmp_path: Path
) -> None:
    out = tmp_path / "micro"
    shutil.copytree(prepared, out)
    with torchrun(out) as run:
        while run.poll() is None and not ((out / "metrics.jsonl").exists() and len(lines(out)) >= 8):
            time.sleep(0.02)
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does
        _, error = run.communicate()
    again = "torchrun --nproc-per-node 2 -m training run"
    assert f"stopped and saved; this goes on from here: {again}" in error
    at = len(lines(out))
    assert 8 <= at < micro().steps
    assert any(state.name.endswith(f"_step_{at % 6}") for state in (out / "state").iterdir()) or at % 6 == 0
    finish(out)
    close(lines(out), lines(trained), 2e-5)


def test_batches_that_do_not_divide_train_every_row_once(
    prepared: Path, finish: Callable[[Path], None], tmp_path: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for out in (one, two):
        shutil.copytree(prepared, out)
        change(out, lambda recipe: replace(recipe, loop=replace(recipe.loop, batch=9, micro_batch=3)))
    finish(one)
    with torchrun(two) as run:
        _, error = run.communicate()
    assert run.returncode == 0, error
    close(lines(two), lines(one), 5e-5)
    assert lines(one)[-1]["tokens"] == micro().mix.total_rows * 128


@given(
    rows=st.integers(1, 40), batch=st.integers(1, 12), world=st.integers(1, 7), micro_batch=st.integers(0, 5)
)
def test_the_processes_share_each_batch_out(
    tmp_path_factory: pytest.TempPathFactory, rows: int, batch: int, world: int, micro_batch: int
) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("".join(json.dumps({"token_ids": [row, 0, 0]}) + "\n" for row in range(rows)))
    seen: list[list[int]] = []
    counts = []
    for rank in range(world):
        here = Processes(rank, world, torch.device("cpu"), sharded=world > 1, saving=None)
        for index, found in enumerate(read_batches(path, batch, here)):
            if rank == 0:
                seen.append([])
                counts.append(len(found.parts(micro_batch)))
                assert found.targets == 2 * min(batch, rows - index * batch)
            parts = found.parts(micro_batch)
            assert len(parts) == counts[index]  # the processes meet after each pass
            seen[index] += [int(row[0]) for part, weight in parts for row in part if weight]
            assert all(len(part) <= max(micro_batch, 1) for part, _ in parts) or not micro_batch
    assert [sorted(found) for found in seen] == [
        list(range(start, min(start + batch, rows))) for start in range(0, rows, batch)
    ]


def test_bfloat16_computes_with_weights_and_rotary_frequencies_in_float32(
    prepared: Path, trained: Path, finish: Callable[[Path], None], tmp_path: Path
) -> None:
    out = tmp_path / "micro"
    shutil.copytree(prepared, out)
    change(out, lambda recipe: replace(recipe, loop=replace(recipe.loop, compute_dtype="bfloat16")))
    finish(out)
    assert {tensor.dtype for tensor in weights(out).values()} == {torch.float32}
    rounded = [tensor.to(torch.bfloat16).float().equal(tensor) for tensor in weights(out).values()]
    assert not any(rounded)
    for one, other in zip(lines(out), lines(trained), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=0.05)
    assert 'compute_dtype = "bfloat16"' in (out / "series.toml").read_text()


def test_angles_at_far_positions_are_those_of_float32() -> None:
    recipe = micro()
    loop = replace(recipe.loop, compute_dtype="bfloat16")
    recipe = replace(recipe, loop=loop, model=replace(recipe.model, positions=4096))
    exact = LlamaRotaryEmbedding(llama_config(recipe.model, 0))
    far = torch.tensor([[4095]])
    with processes(loop) as here:
        model = new_model(Path(), recipe, {"eos_token_id": 0}, here)
        rotary = model.model.rotary_emb
        assert rotary.inv_freq.dtype == torch.float32
        cosine, _ = rotary(torch.zeros(1, dtype=torch.bfloat16), far)
    wanted, _ = exact(torch.zeros(1, dtype=torch.float32), far)
    assert torch.equal(cosine, wanted.to(torch.bfloat16))
    spoiled = LlamaRotaryEmbedding(llama_config(recipe.model, 0)).to(torch.bfloat16)
    wrong, _ = spoiled(torch.zeros(1, dtype=torch.float32), far)
    assert (wrong - wanted).abs().max() > 0.1  # what happens when frequencies are rounded


def test_ambers_own_loop_in_two_processes(prepared: Path, trained: Path, tmp_path: Path) -> None:
    """bfloat16, compiled, activations computed again, micro-batches: all at once, as the 7 B recipe has it."""
    out = tmp_path / "micro"
    shutil.copytree(prepared, out)
    options: dict[str, Any] = {
        "compute_dtype": "bfloat16",
        "compiled": True,
        "recompute": True,
        "micro_batch": 3,
    }
    change(out, lambda recipe: replace(recipe, loop=replace(recipe.loop, **options)))
    recipe = read_recipe(out)
    assert recipe is not None
    with processes(recipe.loop) as here:
        assert new_model(Path(), recipe, {"eos_token_id": 0}, here).is_gradient_checkpointing
    with torchrun(out) as run:
        _, error = run.communicate()
    assert run.returncode == 0, error
    assert {tensor.dtype for tensor in weights(out).values()} == {torch.float32}
    for one, other in zip(lines(out), lines(trained), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=0.05)


def test_compiled_training_agrees_with_plain_and_goes_on_with_the_same_bits(
    prepared: Path,
    finish: Callable[[Path], None],
    start: Callable[..., subprocess.Popen[str]],
    tmp_path: Path,
) -> None:
    """48 rows in steps of 10: the last step of a chunk has a shape of its own, compiled apart."""
    plain, whole, stopped = tmp_path / "plain", tmp_path / "whole", tmp_path / "stopped"
    for out in (plain, whole, stopped):
        shutil.copytree(prepared, out)
        compiled = out != plain
        change(out, lambda recipe: replace(recipe, loop=replace(recipe.loop, batch=10)))
        if compiled:
            change(out, lambda recipe: replace(recipe, loop=replace(recipe.loop, compiled=True, threads=2)))
    finish(plain)
    graphs = counters["stats"]["unique_graphs"]
    finish(whole)
    assert counters["stats"]["unique_graphs"] > graphs
    close(lines(whole), lines(plain), 5e-5)
    with start("run", "--out", stopped) as run:
        while run.poll() is None and not ((stopped / "metrics.jsonl").exists() and len(lines(stopped)) >= 12):
            time.sleep(0.02)
        run.send_signal(signal.SIGINT)
        run.communicate()
    assert run.returncode == 130
    finish(stopped)
    for index in range(6):
        name = f"ckpt_{index:03d}"
        assert all(
            torch.equal(tensor, weights(stopped, name)[key]) for key, tensor in weights(whole, name).items()
        )
