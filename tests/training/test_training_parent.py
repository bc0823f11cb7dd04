"""Going on from a checkpoint: with its optimiser, tokenizer and place in the schedule; a series that remembers."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import analysis360 as a360
from training.__main__ import main
from training.distributed import processes
from training.files import file_sha256
from training.rates import learning_rate
from training.recipes import micro
from training.series import read_recipe, read_report
from training.train import begin

MIX = """
name = "child"
seed = 2
rows = 48
held_out_chunks = 1
held_out_fraction = 0.4
[[sources]]
name = "python-stdlib"
[[sources]]
name = "shakespeare"
[[stages]]
name = "all"
chunks = 3
[[stages.takes]]
source = "python-stdlib"
weight = 0.2
[[stages.takes]]
source = "shakespeare"
weight = 0.8
"""


@pytest.fixture(scope="module")
def family(prepared: Path, finish: Callable[[Path], None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a parent whose states are kept, and the mix of a child."""
    folder = tmp_path_factory.mktemp("family")
    shutil.copytree(prepared, folder / "micro")
    stored = json.loads((folder / "micro/recipe.json").read_text())
    stored["loop"]["keep_state_every"] = 1
    (folder / "micro/recipe.json").write_text(json.dumps(stored))
    finish(folder / "micro")
    (folder / "mix.toml").write_text(MIX)
    return folder


def descend(folder: Path, name: str, out: Path, command: str = "run") -> int:
    threads = torch.get_num_threads()
    arguments = [
        command,
        "--from",
        f"{folder}/micro@{name}",
        "--mix",
        f"{folder}/mix.toml",
        "--out",
        str(out),
    ]
    code = main(arguments)
    torch.set_num_threads(threads)
    return code


def test_a_child_goes_on_with_the_bits_of_its_parent(
    family: Path, finish: Callable[[Path], None], tmp_path: Path
) -> None:
    """Given the parent's own next chunks, a child of ckpt_002 ends as the parent did."""
    out = tmp_path / "child"
    assert descend(family, "ckpt_002", out, "prepare") == 0
    report = json.loads((out / "data/report.json").read_text())
    for index in range(3):
        name = f"data/train/train_{index:03d}.jsonl"
        shutil.copy(family / f"micro/data/train/train_{index + 3:03d}.jsonl", out / name)
        report["files"][name] = file_sha256(out / name)
    (out / "data/report.json").write_text(json.dumps(report))
    finish(out)
    for index in range(3):
        ours = out / f"checkpoints/ckpt_{index:03d}/model.safetensors"
        parents = family / f"micro/checkpoints/ckpt_{index + 3:03d}/model.safetensors"
        assert file_sha256(ours) == file_sha256(parents)


def test_the_child_is_a_series_that_remembers_its_parent(family: Path, tmp_path: Path) -> None:
    out = tmp_path / "child"
    assert descend(family, "-1", out) == 0
    recipe = read_recipe(out)
    assert recipe is not None
    assert recipe.parent is not None
    parent = a360.open_series(family / "micro").checkpoints[-1]
    assert (recipe.parent.series, recipe.parent.checkpoint) == ("micro", "ckpt_005")
    assert (recipe.parent.digest, recipe.parent.optimizer) == (parent.digest, True)
    series = a360.open_series(out)
    assert series.manifest.base == "micro/ckpt_005"
    assert len(series.checkpoints) == 3
    assert (out / "tokenizer/tokenizer.json").read_bytes() == (
        family / "micro/tokenizer/tokenizer.json"
    ).read_bytes()
    shutil.rmtree(out / "checkpoints")
    shutil.rmtree(out / "state")
    (out / "series.toml").unlink()
    shutil.move(family / "micro", family / "elsewhere")  # the child needs its parent no more
    try:
        assert main(["run", "--out", str(out)]) == 0
        assert descend(family, "-1", out) == 0  # the same command again
    finally:
        shutil.move(family / "elsewhere", family / "micro")


def test_the_learning_rate_goes_on_along_the_parents(family: Path, tmp_path: Path) -> None:
    out = tmp_path / "child"
    assert descend(family, "ckpt_003", out, "prepare") == 0
    recipe, before = read_recipe(out), micro()
    assert recipe is not None
    done = 4 * before.chunk_steps
    rates = [learning_rate(done + step, before) for step in range(2 * before.chunk_steps)]
    assert [learning_rate(step, recipe) for step in range(2 * before.chunk_steps)] == rates
    assert learning_rate(17, recipe) == pytest.approx(3e-4)  # beyond the parent's end: its last


def test_a_loop_of_its_own_and_no_optimizer(family: Path, tmp_path: Path) -> None:
    bare, out = tmp_path / "family", tmp_path / "child"
    shutil.copytree(family, bare)
    shutil.rmtree(bare / "micro/state")
    (bare / "micro/recipe.json").unlink()
    assert descend(bare, "ckpt_001", tmp_path / "none", "prepare") == 1  # nothing says how to train
    with (bare / "mix.toml").open("a") as file:
        file.write("[loop]\nbatch = 16\nthreads = 1\n[[loop.rates]]\npeak = 1e-3\nlast = 1e-4\nwarm_up = 2\n")
    assert descend(bare, "ckpt_001", out) == 0
    recipe = read_recipe(out)
    assert recipe is not None
    assert recipe.parent is not None
    assert not recipe.parent.optimizer
    assert recipe.loop.batch == 16
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["learning_rate"] == 5e-4
    parents = [json.loads(line) for line in (family / "micro/metrics.jsonl").read_text().splitlines()]
    assert lines[0]["loss"] < parents[6]["loss"]  # it began with what ckpt_001 knew


def test_the_loop_of_the_child_rules_an_inherited_optimizer(family: Path, tmp_path: Path) -> None:
    mix, out = tmp_path / "mix.toml", tmp_path / "child"
    loop = "[loop]\nbatch = 8\nthreads = 1\nbetas = [0.5, 0.6]\neps = 1e-4\nweight_decay = 0.5\n"
    mix.write_text(MIX + loop + "[[loop.rates]]\npeak = 1e-3\nlast = 1e-4\nwarm_up = 2\n")
    given = ["prepare", "--from", f"{family}/micro@ckpt_001", "--mix", str(mix), "--out", str(out)]
    assert main(given) == 0
    recipe, report = read_recipe(out), read_report(out)
    assert recipe is not None
    assert report is not None
    threads = torch.get_num_threads()
    with processes(recipe.loop) as here:
        run = begin(out, recipe, report, here, [])
        run.saver.close()
    torch.set_num_threads(threads)
    (group,) = run.optimizer.param_groups
    assert (tuple(group["betas"]), group["eps"], group["weight_decay"]) == ((0.5, 0.6), 1e-4, 0.5)
    assert all(state["exp_avg_sq"].any() for state in run.optimizer.state.values())  # averages were inherited


def test_a_parents_state_that_is_none_is_one_line(
    family: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "family", tmp_path / "child"
    shutil.copytree(family, folder)
    (folder / "micro/state/ckpt_003/progress.json").unlink()
    assert descend(folder, "ckpt_003", out) == 1
    error = capsys.readouterr().err
    assert f"{out}/parent/state/ckpt_003: expected a state of this version, found no progress.json" in error
    assert error.count("error: ") == error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--from", "micro", "--mix", "mix.toml"], "--from: expected SERIES@CKPT, found micro"),
        (["--from", "micro@0,1", "--mix", "mix.toml"], "--from: expected one checkpoint, found 2"),
        (["--from", "micro@ckpt_900", "--mix", "mix.toml"], "unknown checkpoint 'ckpt_900'"),
        (["--from", "micro@ckpt_001"], "--from: expected a mix to go on with, found none"),
        (["--mix", "mix.toml"], "run --mix: expected a checkpoint to go on from, found none"),
    ],
)
def test_what_cannot_be_gone_on_from_is_one_line(
    family: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    complaint: str,
) -> None:
    monkeypatch.chdir(family)
    assert main(["run", *arguments, "--out", "nothing"]) == 1
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1
    assert not (family / "nothing/checkpoints").exists()
