"""The log of a training run: a row a step, and the events between them."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis360.errors import DataError
from analysis360.series import Series
from analysis360.series.schedules import PhaseExposure

STEP_COLUMNS = ("step", "tokens", "loss")
EVENT_COLUMNS = ("event", "chunk", "position", "step", "tokens", "loss", "gradient_norm", "reason")
MEASURED = (
    "loss",
    "learning_rate",
    "gradient_norm",
    "seconds",
    "tokens_per_second",
    "memory_mb",
    "mfu",
    "spike",
)
"""Columns of numbers that may be null: NaN in a frame, even where every line has null."""


class TrainingLog(NamedTuple):
    """What a run has left in its metrics file."""

    metrics: pd.DataFrame
    """A row a step; the columns are the fields of the lines."""
    events: pd.DataFrame
    """A row an event, such as a chunk that was abandoned; EVENT_COLUMNS, and other fields of the lines."""


def read_log(series: Series) -> TrainingLog:
    """The steps and the events of the training run; a last line that is still being written is left out.

    Raises DataError when the series has none, or naming the line that cannot be read.
    """
    if series.manifest.metrics is None:
        raise DataError(f"series {series.name}: the manifest names no metrics")
    if series.place is None:
        raise DataError(f"series {series.name}: its release has no metrics")
    path = f"{series.place.where}/{series.manifest.metrics}"
    try:
        text = series.place.read(series.manifest.metrics).decode("utf-8", "replace")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    records = _records(text, path)
    steps = [record for record in records if "event" not in record]
    events = [dict.fromkeys(EVENT_COLUMNS) | record for record in records if "event" in record]
    return TrainingLog(_frame(steps, STEP_COLUMNS, path), _frame(events, EVENT_COLUMNS, path))


def read_metrics(series: Series) -> pd.DataFrame:
    """The steps of the training run, a row a step (see `read_log`)."""
    return read_log(series).metrics


def read_events(series: Series) -> pd.DataFrame:
    """The events of the training run, a row an event; none is an empty frame (see `read_log`)."""
    return read_log(series).events


def stages_of(series: Series) -> list[tuple[str, float, float]]:
    """(name, tokens before it, tokens at its end) of each stage of training, where there are several."""
    exposure = series.exposure
    if isinstance(exposure, PhaseExposure) and exposure.tokens_per_chunk:
        ends = np.cumsum(exposure.lengths, dtype=np.float64) * exposure.tokens_per_chunk
        names = [f"phase {i}" for i in range(1, len(ends) + 1)]
        return list(zip(names, [0.0, *ends[:-1].tolist()], ends.tolist(), strict=True))
    if series.manifest.metrics is None or series.place is None:
        return []
    metrics = read_metrics(series)
    if "stage" not in metrics or not len(metrics):
        return []
    ends_of = (
        metrics.assign(stage=metrics["stage"].ffill().bfill()).groupby("stage", sort=False)["tokens"].max()
    )
    starts = [0.0, *map(float, ends_of.iloc[:-1])]
    named = zip(map(str, ends_of.index), starts, map(float, ends_of), strict=True)
    return list(named) if len(ends_of) > 1 else []


def _records(text: str, path: str) -> list[dict[str, Any]]:
    """The JSON object of every line but a last one that is cut short."""
    lines = text.split("\n")
    unfinished = lines.pop()  # nothing, when the last line is whole
    records = []
    for number, line in enumerate([*lines, unfinished] if unfinished else lines, 1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict):
            records.append(record)
        elif number <= len(lines):
            raise DataError(f"{path} line {number}: expected a JSON object, found {line[:60]!r}")
    return records


def _frame(records: list[dict[str, Any]], columns: tuple[str, ...], path: str) -> pd.DataFrame:
    """The records as rows, nulls of measured columns as NaN; without records an empty frame of `columns`."""
    frame = pd.DataFrame(records) if records else pd.DataFrame(columns=list(columns))
    for name in MEASURED:
        if name in frame:
            try:
                frame[name] = frame[name].astype("float64")
            except (TypeError, ValueError) as error:
                raise DataError(f"{path}: {name}: expected numbers or null; {error}") from None
    return frame
