"""States: the same bits on any number of processes, and anything else in their folder is one line."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from analysis360.doctor import doctor
from training.distributed import Processes
from training.errors import TrainingError
from training.model import new_model
from training.progress import Progress
from training.recipes import micro
from training.records import from_json
from training.state import restore
from training.train import new_optimizer

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")  # one process reads
REPOSITORY = Path(__file__).resolve().parents[2]
ALONE = Processes(0, 1, torch.device("cpu"), sharded=False, saving=None)
SHARD = "optimizer_and_weights_00001.safetensors"
AGAIN = """
import sys
from pathlib import Path
from training.distributed import processes
from training.model import new_model
from training.recipes import micro
from training.state import Saver, restore
from training.train import new_optimizer

state, out = map(Path, sys.argv[1:])
recipe, report = micro(), {"eos_token_id": 0, "canaries": [], "vocabulary": 512}
with processes(recipe.loop) as here:
    model = new_model(out, recipe, report, here)
    optimizer = new_optimizer(model, recipe.loop)
    progress = restore(state, here, model, optimizer)
    saver = Saver(out, here, recipe, report)
    saver.save(model, optimizer, progress)
    saver.close()
"""
"""Read a state and write it again."""


def restored(folder: Path) -> tuple[LlamaForCausalLM, torch.optim.Optimizer, Progress]:
    """A model and an optimiser that a state was read into, in this process."""
    model = new_model(Path(), micro(), {"eos_token_id": 0}, ALONE)
    optimizer = new_optimizer(model, micro().loop)
    return model, optimizer, restore(folder, ALONE, model, optimizer)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """What a state of one process holds, read without the code under test."""
    return load_file(folder / SHARD)


def test_a_state_holds_what_it_says(trained: Path) -> None:
    """Beside the weights of the checkpoint: every weight has averages, and as many steps as the run took."""
    folder = trained / "state/ckpt_005"
    found = tensors(folder)
    weights = load_file(trained / "checkpoints/ckpt_005/model.safetensors")
    assert len(found) == 4 * len(weights)
    for name, weight in weights.items():
        assert torch.equal(found[f"model.{name}"], weight)
        assert found[f"optimizer.{name}.step"].item() == micro().steps
        for average in ("exp_avg", "exp_avg_sq"):
            assert found[f"optimizer.{name}.{average}"].shape == weight.shape
            assert found[f"optimizer.{name}.{average}"].any()
    progress = json.loads((folder / "progress.json").read_text())
    assert progress["order"] == [*range(6)]
    assert progress["steps"] == micro().steps
    assert {file.name for file in folder.iterdir()} == {SHARD, "progress.json"}


def test_it_is_read_bit_by_bit(trained: Path) -> None:
    model, optimizer, progress = restored(trained / "state/ckpt_005")
    found = tensors(trained / "state/ckpt_005")
    for name, weight in model.named_parameters():
        assert torch.equal(weight, found[f"model.{name}"])
        for key, average in optimizer.state[weight].items():
            assert torch.equal(average, found[f"optimizer.{name}.{key}"])
    assert asdict(progress) == json.loads((trained / "state/ckpt_005/progress.json").read_text())


def several(folder: Path, out: Path, processes: int) -> Path:
    """A state, read and written again by so many processes: its new folder."""
    out.mkdir()
    shutil.copytree(folder.parents[1] / "tokenizer", out / "tokenizer")
    (out / "metrics.jsonl").touch()
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    command += ["--no-python", sys.executable, "-c", AGAIN, str(folder), str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "UserWarning" not in done.stderr
    return out / "state" / folder.name


@pytest.fixture(scope="module")
def shared_out(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of one process, written again by three."""
    return several(trained / "state/ckpt_005", tmp_path_factory.mktemp("several") / "three", 3)


def test_three_processes_and_one_hold_the_same_bits(trained: Path, shared_out: Path) -> None:
    """Three share no side of the model evenly. Pieces, laid by hand where their files say, are the whole."""
    whole = tensors(trained / "state/ckpt_005")
    put_together = {name: torch.full_like(tensor, torch.nan) for name, tensor in whole.items()}
    files = sorted(shared_out.glob("*.safetensors"))
    assert len(files) == 3
    for file in files:
        with safe_open(file, "pt") as shard:
            places = json.loads(shard.metadata()["DCP_SHARDING_INFO"])
            for name, piece in load_file(file).items():
                start = places[name]["saved_offsets"]
                slices = [slice(at, at + size) for at, size in zip(start, piece.shape, strict=True)]
                put_together[name][tuple(slices)] = piece
    assert all(torch.equal(put_together[name], tensor) for name, tensor in whole.items())
    model, optimizer, progress = restored(shared_out)
    assert asdict(progress) == asdict(restored(trained / "state/ckpt_005")[2])
    for name, weight in model.named_parameters():
        assert torch.equal(weight, whole[f"model.{name}"])
        for key, average in optimizer.state[weight].items():
            assert torch.equal(average, whole[f"optimizer.{name}.{key}"])


def test_three_processes_write_the_checkpoint_of_one(trained: Path, shared_out: Path) -> None:
    ours = shared_out.parents[1] / "checkpoints/ckpt_005"
    for file in (trained / "checkpoints/ckpt_005").iterdir():
        assert (ours / file.name).read_bytes() == file.read_bytes()


class Hostile:
    """What runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def old_format(folder: Path) -> None:
    """As torch's default writes it: an index and values that are pickles, here of what must not run."""
    for file in folder.iterdir():
        file.unlink()
    for name in (".metadata", "__0_0.distcp"):
        (folder / name).write_bytes(pickle.dumps(Hostile(f"touch {folder}/proof")))


def pickled(folder: Path) -> None:
    (folder / SHARD).write_bytes(pickle.dumps(Hostile(f"touch {folder}/proof")))


def truncated(folder: Path) -> None:
    with (folder / SHARD).open("rb+") as file:
        file.truncate((folder / SHARD).stat().st_size - 1)


def mended(change: Callable[[dict[str, torch.Tensor], dict[str, str]], object]) -> Callable[[Path], None]:
    """A shard whose tensors and metadata were changed."""

    def damage(folder: Path) -> None:
        found = tensors(folder)
        with safe_open(folder / SHARD, "pt") as shard:
            metadata = shard.metadata()
        change(found, metadata)
        save_file(found, folder / SHARD, metadata)

    return damage


HEAD = "model.lm_head.weight"
STEP = "optimizer.lm_head.weight.step"
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "old format": (old_format, "no progress.json"),
    "pickle": (pickled, "header"),
    "truncated": (truncated, "incomplete"),
    "empty file": (lambda folder: (folder / SHARD).write_bytes(b""), "header"),
    "no shard": (lambda folder: (folder / SHARD).unlink(), "Missing key"),
    "folder": (lambda folder: ((folder / SHARD).unlink(), (folder / SHARD).mkdir()), "(os error"),
    "lost tensor": (
        mended(lambda found, _: found.pop(STEP)),
        f"Missing key in checkpoint state_dict: {STEP}",
    ),
    "cut tensor": (mended(lambda found, _: found.update({HEAD: found[HEAD][1:].clone()})), "Size mismatch"),
    "turned tensor": (mended(lambda found, _: found.update({HEAD: found[HEAD].T.contiguous()})), "mismatch"),
    "vector": (mended(lambda found, _: found.update({HEAD: found[HEAD].flatten()})), ""),
    "places": (mended(lambda _, metadata: metadata.update(DCP_SHARDING_INFO="[]")), ""),
    "no places": (mended(lambda _, metadata: metadata.update(DCP_SHARDING_INFO="{")), ""),
    "position": (lambda folder: (folder / "progress.json").write_text('{"steps": "x"}'), "Progress.steps"),
    "no JSON": (lambda folder: (folder / "progress.json").write_text("["), "progress.json: Expecting value"),
    "deep JSON": (lambda folder: (folder / "progress.json").write_text("[" * 100_000), "progress.json: "),
    "unknown": (lambda folder: (folder / "progress.json").write_text('{"colour": 1}'), "Progress.colour"),
}


def refusal(folder: Path) -> str:
    """What is said of a folder that is no state; always one line that names it and the way out."""
    with pytest.raises(TrainingError) as refused:
        restored(folder)
    said = str(refused.value)
    assert said.startswith(f"{folder}: expected a state of this version, found ")
    assert said.endswith("; remove that folder: the state before it counts then, or the beginning")
    assert "\n" not in said
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize("what", DAMAGES)
def test_anything_else_is_one_line_and_never_run(
    trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], what: str
) -> None:
    damage, complaint = DAMAGES[what]
    folder = tmp_path / "ckpt_005"
    shutil.copytree(trained / "state/ckpt_005", folder)
    damage(folder)
    assert complaint in refusal(folder)
    assert not (folder / "proof").exists()
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("index", [1, 2, 3])
def test_a_file_of_several_that_is_lost_is_missed(shared_out: Path, tmp_path: Path, index: int) -> None:
    """Whatever part is gone: nothing is read as if it were the whole."""
    folder = tmp_path / "ckpt_005"
    shutil.copytree(shared_out, folder)
    (folder / f"optimizer_and_weights_{index:05d}.safetensors").unlink()
    refusal(folder)


def test_a_run_with_a_state_that_is_none_says_so_and_goes_on_without(
    trained: Path,
    training: Callable[..., subprocess.CompletedProcess[str]],
    finish: Callable[[Path], None],
    tmp_path: Path,
) -> None:
    out = tmp_path / "micro"
    shutil.copytree(trained, out)
    (out / "series.toml").unlink()
    old_format(out / "state/ckpt_005")
    error = training("run", "--out", out, expect=1).stderr
    assert error.startswith(
        f"error: {out}/state/ckpt_005: expected a state of this version, found no progress"
    )
    assert error.count("\n") == 1
    shutil.rmtree(out / "state/ckpt_005")
    shutil.rmtree(out / "checkpoints/ckpt_005")
    finish(out)
    for name in ("series.toml", "checkpoints/ckpt_005/model.safetensors"):
        assert (out / name).read_bytes() == (trained / name).read_bytes()


def test_the_doctor_sees_a_state_for_what_it_is(trained: Path) -> None:
    (found,) = [row for row in doctor(trained).standing if row.column == "optimizer checkpoints"]
    assert (found.verdict, found.evidence) == ("partly", f"1 for 6 checkpoints: state/ckpt_005/{SHARD}")


@given(
    st.builds(
        Progress,
        order=st.lists(st.integers(0, 400)),
        abandoned=st.lists(st.integers(0, 400)),
        chunk_steps=st.integers(0),
        steps=st.integers(0),
        tokens=st.integers(0),
        lines=st.integers(0),
    )
)
def test_a_position_survives_json(progress: Progress) -> None:
    assert from_json(Progress, json.loads(json.dumps(asdict(progress)))) == progress
