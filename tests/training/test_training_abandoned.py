"""A chunk that makes the loss NaN is given up, and the series is what it would be if it had not been there.

The poison is planted: the parent's embedding of one id is NaN, and only one row of the data holds that id.
"""

import json
import math
import shutil
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
seed = 1
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
    """Help topics, and one short document of bells; returns the mix file."""
    texts = [text[:2000] for _, text in sorted(topics.items()) if len(text) >= 2000][:16]
    texts.insert(7, BELL * 8)
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


def bad_chunk(out: Path) -> int:
    bell = Tokenizer.from_file(str(out / "tokenizer/tokenizer.json")).encode(BELL).ids[0]
    files = sorted((out / "data/train").iterdir())
    rows = [[json.loads(line)["token_ids"] for line in file.read_text().splitlines()] for file in files]
    found = [index for index, chunk in enumerate(rows) if any(bell in row for row in chunk)]
    assert len(found) == 1
    return found[0]


def digests(out: Path) -> list[str]:
    return [file_sha256(path) for path in sorted(out.glob("checkpoints/*/model.safetensors"))]


def test_the_chunk_is_skipped_and_the_first_completes_the_schedule(poisoned: Path) -> None:
    bad = bad_chunk(poisoned)
    order = [chunk for chunk in range(CHUNKS) if chunk != bad]
    order.append(order[0])
    series = a360.open_series(poisoned)
    assert list(series.exposure.order) == order
    assert len(series.checkpoints) == CHUNKS
    lines = [json.loads(line) for line in (poisoned / "metrics.jsonl").read_text().splitlines()]
    events = [line for line in lines if "event" in line]
    assert [(event["event"], event["chunk"], event["position"]) for event in events] == [
        ("abandoned", bad, bad)
    ]
    assert events[0]["loss"] is None
    assert events[0]["reason"] == "the loss is not finite"
    steps = [line for line in lines if "event" not in line]
    assert [line["step"] for line in steps] == list(range(CHUNKS * 3))
    assert [line["chunk"] for line in steps] == [chunk for chunk in order for _ in range(3)]
    assert all(math.isfinite(line["loss"]) for line in steps)


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
    bad = bad_chunk(poisoned)
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
    assert set(last[last.exposures == 0].chunk) == {names[bad]}
    assert set(last[last.exposures == 2].chunk) == {names[order[0]]}
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
