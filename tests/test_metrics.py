"""The log of a training run: new files and old ones, events between the steps, a line that is being written."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from analysis360.errors import DataError
from analysis360.metrics import EVENT_COLUMNS, read_events, read_log, read_metrics
from analysis360.places import LocalFolder
from analysis360.results import read_metrics as read_metrics_as_before

STEP = {
    "step": 0,
    "chunk": 0,
    "stage": "all",
    "position": 0,
    "tokens": 512,
    "loss": 7.5,
    "learning_rate": 5e-05,
    "gradient_norm": 3.25,
    "seconds": 0.08,
    "tokens_per_second": 6400.0,
    "memory_mb": 500.0,
    "mfu": None,
    "spike": None,
}
ABANDONED = {
    "event": "abandoned",
    "chunk": 7,
    "position": 7,
    "step": 310,
    "tokens": 1234,
    "loss": None,
    "gradient_norm": None,
    "reason": "the loss is not finite",
}


def written(folder: Path, text: str) -> Any:
    """A series of nothing but a metrics file."""
    (folder / "metrics.jsonl").write_text(text, "utf-8")
    manifest = SimpleNamespace(metrics="metrics.jsonl")
    return SimpleNamespace(name="planted", manifest=manifest, place=LocalFolder(folder))


def lines(*records: dict[str, Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def test_steps_and_events_part(tmp_path: Path) -> None:
    second = STEP | {"step": 1, "loss": None, "mfu": 0.4, "spike": 6.5}
    series = written(tmp_path, lines(STEP, ABANDONED, second))
    metrics, events = read_log(series)
    assert list(metrics.columns) == list(STEP)
    assert metrics["step"].tolist() == [0, 1]
    assert metrics["step"].dtype == np.int64
    for name, expected in (("loss", [7.5, np.nan]), ("mfu", [np.nan, 0.4]), ("spike", [np.nan, 6.5])):
        np.testing.assert_array_equal(metrics[name], expected)
    assert tuple(events.columns) == EVENT_COLUMNS
    assert events.iloc[0][["event", "chunk", "step", "tokens"]].tolist() == ["abandoned", 7, 310, 1234]
    assert events["loss"].dtype == np.float64
    assert read_events(series).equals(events)
    assert read_metrics(series).equals(metrics)
    assert read_metrics_as_before is read_metrics


def test_numbers_that_are_null_on_every_line_are_nan_and_not_objects(tmp_path: Path) -> None:
    metrics = read_metrics(written(tmp_path, lines(STEP, STEP | {"loss": None})))
    assert metrics[["mfu", "spike", "loss"]].dtypes.eq("float64").all()
    assert metrics["mfu"].isna().all()


def test_a_file_of_the_old_trainer_reads_as_it_did(tmp_path: Path) -> None:
    old = {"step": 0, "chunk": 0, "tokens": 512, "loss": 7.5, "learning_rate": 5e-05, "gradient_norm": 3.0}
    old["seconds"] = 0.1
    metrics, events = read_log(written(tmp_path, lines(old, old | {"step": 1})))
    assert list(metrics.columns) == list(old)
    assert len(metrics) == 2
    assert events.empty
    assert tuple(events.columns) == EVENT_COLUMNS


def test_a_log_that_changes_its_fields_midway_has_gaps(tmp_path: Path) -> None:
    metrics = read_metrics(
        written(tmp_path, lines({"step": 0, "tokens": 1, "loss": 2.0}, STEP | {"step": 1}))
    )
    assert metrics["stage"].isna().tolist() == [True, False]


@pytest.mark.parametrize("kept", range(1, len(json.dumps(STEP))))
def test_a_last_line_cut_anywhere_is_left_out(tmp_path: Path, kept: int) -> None:
    assert len(read_metrics(written(tmp_path, lines(STEP) + json.dumps(STEP)[:kept]))) == 1


def test_a_last_line_that_lacks_its_end_alone_counts(tmp_path: Path) -> None:
    assert len(read_metrics(written(tmp_path, lines(STEP) + json.dumps(STEP)))) == 2


@pytest.mark.parametrize("damaged", ['{"step": 0, "lo', "[1]", "7", ""])
def test_any_other_damaged_line_is_named(tmp_path: Path, damaged: str) -> None:
    for after in ("", lines(STEP)):
        with pytest.raises(DataError, match=r"metrics\.jsonl line 2: expected a JSON object"):
            read_log(written(tmp_path, lines(STEP) + damaged + "\n" + after))


def test_a_loss_that_is_no_number_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"metrics\.jsonl: loss: expected numbers or null"):
        read_log(written(tmp_path, lines(STEP | {"loss": "high"})))


def test_names_may_hold_what_other_programs_take_for_the_end_of_a_line(tmp_path: Path) -> None:
    step = STEP | {"stage": "first\u2028half\x85"}
    series = written(tmp_path, json.dumps(step, ensure_ascii=False) + "\n")
    assert read_metrics(series)["stage"].tolist() == ["first\u2028half\x85"]


def test_a_file_without_a_whole_line_is_an_empty_frame(tmp_path: Path) -> None:
    for text in ("", '{"step"'):
        metrics, events = read_log(written(tmp_path, text))
        assert metrics.empty
        assert {"step", "tokens", "loss"} <= set(metrics)
        assert events.empty


def test_300_000_steps_are_read_in_seconds(tmp_path: Path) -> None:
    series = written(tmp_path, lines(STEP) * 300_000)
    start = time.process_time()
    assert len(read_metrics(series)) == 300_000
    assert time.process_time() - start < 10
