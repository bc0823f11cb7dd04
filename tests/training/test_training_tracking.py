"""Weights & Biases and TensorBoard hold the numbers of metrics.jsonl; both without a network."""

import json
import shutil
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto.wandb_internal_pb2 import Record

from training.__main__ import main
from training.errors import TrainingError
from training.recipes import micro
from training.tracking import open_tracker

BLOCK = 1 << 15


def records(data: bytes) -> Iterator[bytes]:
    """The records of a file in LevelDB's log format: pieces of (checksum, length, kind) in blocks of 32 KiB."""
    position, record = 7, b""
    while position + 7 <= len(data):
        if BLOCK - position % BLOCK < 7:
            position += BLOCK - position % BLOCK
        _, length, kind = struct.unpack_from("<IHB", data, position)
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # the whole, or its last piece
            yield record
            record = b""


def wandb_losses(path: Path) -> dict[int, float]:
    """The loss of each step, out of the file that an offline run leaves."""
    found = {}
    for data in records(path.read_bytes()):
        record = Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            found[int(items["step"])] = float(items["loss"])
    return found


def test_trackers_hold_what_the_metrics_hold(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "micro"
    shutil.copytree(prepared, out)
    monkeypatch.setenv("WANDB_MODE", "offline")
    threads = torch.get_num_threads()
    assert main(["run", "--out", str(out), "--track", "wandb", "--track", "tensorboard"]) == 0
    torch.set_num_threads(threads)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    losses = {line["step"]: pytest.approx(line["loss"]) for line in lines}
    assert len(losses) == micro().steps
    events = EventAccumulator(str(out / "tensorboard")).Reload()
    assert {event.step: event.value for event in events.Scalars("loss")} == losses
    assert {"learning_rate", "gradient_norm", "tokens_per_second", "mfu"} <= set(events.Tags()["scalars"])
    (found,) = out.glob("wandb/offline-run-*/*.wandb")
    assert wandb_losses(found) == losses


def test_a_tracker_that_is_not_installed_names_its_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(TrainingError, match=r"--track wandb: expected the package wandb.*pip install wandb"):
        open_tracker("wandb", tmp_path, micro(), 0)
