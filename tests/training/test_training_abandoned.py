"""Chunks that make the loss NaN are given up, and the series is what it would be if they had not been there.

The poison is planted: the parent's embedding of one id is NaN, and only two rows of the data hold that id.
"""

import json
import math
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

import analysis360 as a360
from training.__main__ import main
from training.errors import TrainingError
from training.files import file_sha256
from training.progress import Progress

BELL = "\a"
CHUNKS = 5
MIX = """
name = "poisoned"
seed = 5
rows = 16
held_out_chunks = 0
held_out_fraction = 0.0
[[sources]]
name = "texts"
files = "{folder}/texts.jsonl"
[[stages]]
name = "all"
chunks = 5
[[stages.takes]]
source = "texts"
weight = 1.0
[loop]
batch = 6
threads = 1
[[loop.rates]]
peak = 2e-3
last = 2e-4
warm_up = 3
"""


def poison(parent: Path) -> None:
    """The embedding of the bell is NaN; the optimiser's state is gone, so that the weights count."""
    shutil.rmtree(parent / "state")
    path = parent / "checkpoints/ckpt_005/model.safetensors"
    weights = load_file(path)
    bell = Tokenizer.from_file(str(parent / "tokenizer/tokenizer.json")).encode(BELL).ids
    assert len(bell) == 1
    weights["model.embed_tokens.weight"][bell[0]] = math.nan
    save_file(weights, path, metadata={"format": "pt"})


def write_texts(folder: Path) -> Path:
    """Help topics, and two short documents of bells; returns the mix file."""
    texts = [text[:2000] for _, text in sorted(topics.items()) if len(text) >= 2000][:16]
    texts.insert(7, BELL * 8)
    texts.insert(12, BELL * 9)
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    path = folder / "mix.toml"
    path.write_text(MIX.format(folder=folder))
    return path


@pytest.fixture(scope="module")
def poisoned(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("poisoned")
    shutil.copytree(trained, folder / "parent")
    poison(folder / "parent")
    mix, threads = write_texts(folder), torch.get_num_threads()
    arguments = [
        "run",
        "--from",
        f"{folder}/parent@ckpt_005",
        "--mix",
        str(mix),
        "--out",
        str(folder / "run"),
    ]
    assert main(arguments) == 0
    torch.set_num_threads(threads)
    return folder / "run"


def bad_rows(out: Path) -> dict[int, int]:
    """The first row with a bell, of each chunk that has one."""
    bell = Tokenizer.from_file(str(out / "tokenizer/tokenizer.json")).encode(BELL).ids[0]
    found: dict[int, int] = {}
    for chunk, file in enumerate(sorted((out / "data/train").iterdir())):
        for row, line in enumerate(file.read_text().splitlines()):
            if bell in json.loads(line)["token_ids"]:
                found.setdefault(chunk, row)
    assert list(found) == [1, 2]  # one after the other, where forgetting the first would show
    return found


def digests(out: Path) -> list[str]:
    return [file_sha256(path) for path in sorted(out.glob("checkpoints/*/model.safetensors"))]


def test_the_chunks_are_skipped_and_the_first_complete_the_schedule(poisoned: Path) -> None:
    bad = bad_rows(poisoned)
    order = [0, 3, 4, 0, 3]
    series = a360.open_series(poisoned)
    assert list(series.exposure.order) == order
    assert len(series.checkpoints) == CHUNKS
    lines = [json.loads(line) for line in (poisoned / "metrics.jsonl").read_text().splitlines()]
    events = [line for line in lines if "event" in line]
    assert [(event["event"], event["chunk"], event["position"]) for event in events] == [
        ("abandoned", chunk, 1) for chunk in bad
    ]
    for event in events:
        done = bad[event["chunk"]] // 6  # steps of six rows before it
        assert (event["step"], event["tokens"]) == (3 + done, 16 * 128 + done * 6 * 128)
        assert event["loss"] is None
        assert event["reason"] == "the loss is not finite"
    steps = [line for line in lines if "event" not in line]
    assert [line["step"] for line in steps] == list(range(CHUNKS * 3))
    assert [line["chunk"] for line in steps] == [chunk for chunk in order for _ in range(3)]
    assert [line["event"] for line in lines[3:5]] == ["abandoned", "abandoned"]
    assert all(math.isfinite(line["loss"]) for line in steps)


class AtStep:
    """A tracker that has the run asked to stop after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def log(self, values: dict[str, Any], step: int) -> None:
        if step == self.step and "loss" in values:
            os.kill(os.getpid(), signal.SIGINT)

    def close(self) -> None: ...


@pytest.mark.parametrize("step", [3, 4])
def test_stopped_within_a_chunk_that_is_given_up_later_it_goes_on(
    poisoned: Path,
    finish: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    step: int,
) -> None:
    """The step saved is one of a chunk that leaves no trace; steps of other chunks have the same number later."""
    out = tmp_path / "run"
    for name in ("data", "tokenizer", "parent"):
        shutil.copytree(poisoned / name, out / name)
    shutil.copy(poisoned / "recipe.json", out / "recipe.json")
    monkeypatch.setattr("training.train.open_tracker", lambda *_: AtStep(step))
    threads = torch.get_num_threads()
    for _ in range(2):
        main(["run", "--out", str(out), "--track", "tensorboard"])
    torch.set_num_threads(threads)
    finish(out)
    assert digests(out) == digests(poisoned)
    assert [state.name for state in (out / "state").iterdir()] == ["ckpt_004"]


def test_every_bit_is_as_if_the_chunk_had_not_been_there(
    poisoned: Path, finish: Callable[[Path], None], tmp_path: Path
) -> None:
    """The oracle: the good chunks, in the order they were trained on, as the data of an ordinary run."""
    out = tmp_path / "clean"
    for name in ("data", "tokenizer", "parent"):
        shutil.copytree(poisoned / name, out / name)
    shutil.copy(poisoned / "recipe.json", out / "recipe.json")
    report = json.loads((out / "data/report.json").read_text())
    for position, chunk in enumerate(a360.open_series(poisoned).exposure.order):
        name = f"data/train/train_{position:03d}.jsonl"
        shutil.copy(poisoned / f"data/train/train_{chunk:03d}.jsonl", out / name)
        report["files"][name] = file_sha256(out / name)
    (out / "data/report.json").write_text(json.dumps(report))
    finish(out)
    assert digests(out) == digests(poisoned)
    assert '"event"' not in (out / "metrics.jsonl").read_text()


def test_memorization_knows_what_was_skipped_and_what_came_twice(poisoned: Path, tmp_path: Path) -> None:
    out = tmp_path / "scored"
    shutil.copytree(poisoned, out)
    for path in out.glob("checkpoints/*/model.safetensors"):  # engines refuse NaN; no other row has that id
        cured: dict[str, Any] = {name: torch.nan_to_num(weight) for name, weight in load_file(path).items()}
        save_file(cured, path, metadata={"format": "pt"})
    result = a360.memorization(
        out, "0,-1", engine="torch", sequences=16, out=tmp_path / "results", progress=False
    )
    frame = result.frame()
    names = [f"train_{chunk:03d}" for chunk in range(CHUNKS)]
    order = list(a360.open_series(out).exposure.order)
    for ckpt, done in (("ckpt_000", 1), (f"ckpt_{CHUNKS - 1:03d}", CHUNKS)):
        rows = frame[frame.ckpt == ckpt].groupby("chunk").exposures.agg(["min", "max"])
        for chunk, name in enumerate(names):
            times = order[:done].count(chunk)
            assert (rows.loc[name, "min"], rows.loc[name, "max"]) == (times, times)
    last = frame[frame.ckpt == f"ckpt_{CHUNKS - 1:03d}"]
    assert set(last[last.exposures == 0].chunk) == {names[1], names[2]}
    assert set(last[last.exposures == 2].chunk) == {names[0], names[3]}
    assert np.isfinite(last.score).all()


def test_the_order_skips_what_was_abandoned_and_starts_again() -> None:
    progress = Progress()
    order = []
    for _ in range(4):
        if progress.next_chunk(4) == 1:
            progress.abandoned.append(1)
        order.append(progress.next_chunk(4))
        progress.finish(order[-1])
    assert order == [0, 2, 3, 0]
    progress.abandoned += [0]  # it fails the second time, too
    assert progress.next_chunk(4) == 2
    progress.abandoned += [2, 3]
    with pytest.raises(TrainingError, match="expected a finite loss, found none in any chunk"):
        progress.next_chunk(4)
