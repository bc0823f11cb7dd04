"""The loop: plan, subtract what is stored, load a checkpoint, run its units, write, go on."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from tqdm import tqdm

from analysis360.ahead import Ahead
from analysis360.engines import Engine
from analysis360.errors import Analysis360Error, CheckpointError, EngineError, SelectionError
from analysis360.series import Checkpoint
from analysis360.store import Store, Writer
from analysis360.tasks import Task, Unit


@dataclass
class Report:
    """What a sweep did, where its time went, and what it asked of the Hub."""

    stored: int = 0
    """Sequences that were in the store already."""
    computed: int = 0
    """Sequences scored by this run."""
    seconds: dict[str, float] = field(
        default_factory=lambda: {"start": 0.0, "fetch": 0.0, "load": 0.0, "run": 0.0, "write": 0.0}
    )
    """Time of the engine's start, of waiting for downloads, of loading weights, of scoring, of writing."""
    failures: list[CheckpointError] = field(default_factory=list)
    traffic: list[str] = field(default_factory=list)
    """A line for each Hub that was asked."""

    def line(self) -> str:
        """One line for the end of a run."""
        if not self.computed:
            return f"{self.stored:,} sequences were stored already; nothing to compute"
        spent = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.seconds.items())
        rate = self.computed / max(self.seconds["run"], 1e-9)
        return f"{self.computed:,} sequences scored ({rate:,.0f} a second), {self.stored:,} stored already; {spent}"


def sweep(task: Task, store: Store, engine: Callable[[], Engine], *, progress: bool = True) -> Report:
    """Compute what is missing, checkpoint by checkpoint, and store it.

    The engine is opened only when something is missing. A checkpoint that cannot be loaded is
    reported in the end and does not stop the others. Interrupted, every finished unit is kept.
    """
    store.prepare()
    store.tidy(task)
    missing = store.missing(task)
    report = Report(stored=sum(map(len, task.units())) - sum(map(len, missing)))
    if not missing:
        return report
    started = time.monotonic()
    groups = list(_by_checkpoint(missing))
    ahead = Ahead([checkpoint for checkpoint, _ in groups])
    running: Engine | None = None
    try:
        running = engine()
        report.seconds["start"] = time.monotonic() - started
        with tqdm(
            total=sum(map(len, missing)), unit="seq", disable=None if progress else True, leave=False
        ) as bar:
            for checkpoint, units in groups:
                bar.set_description(checkpoint.name)
                if _there(ahead, checkpoint, report):
                    try:
                        _one_checkpoint(task, store, running, checkpoint, units, report, bar)
                    finally:
                        checkpoint.release()
                else:
                    bar.update(sum(map(len, units)))
    finally:
        ahead.close()
        if running is not None:
            running.close()
    return report


def _there(ahead: Ahead, checkpoint: Checkpoint, report: Report) -> bool:
    """Wait for a checkpoint's files; False, and a failure reported, where they are not what they should be."""
    started = time.monotonic()
    try:
        ahead.take()
    except CheckpointError as error:
        error.add_note(f"at checkpoint {checkpoint.name}")
        report.failures.append(error)
        return False
    finally:
        report.seconds["fetch"] += time.monotonic() - started
    return True


def _by_checkpoint(units: list[Unit]) -> Iterator[tuple[Checkpoint, list[Unit]]]:
    for _, group in groupby(units, key=lambda unit: unit.checkpoint.index):
        same = list(group)
        yield same[0].checkpoint, same


def _one_checkpoint(
    task: Task,
    store: Store,
    engine: Engine,
    checkpoint: Checkpoint,
    units: list[Unit],
    report: Report,
    bar: tqdm[Any],
) -> None:
    started = time.monotonic()
    try:
        engine.load(checkpoint)
        if replace(checkpoint).digest != checkpoint.digest:
            raise CheckpointError(
                f"checkpoint {checkpoint.name}: {checkpoint.place.where} changed since the run began"
            )
    except CheckpointError as error:
        report.failures.append(error)
        bar.update(sum(map(len, units)))
        return
    finally:
        report.seconds["load"] += time.monotonic() - started
    with store.writer(task, checkpoint.name, provenance(engine, checkpoint)) as writer:
        for unit in units:
            _one_unit(task, engine, unit, writer, report)
            bar.update(len(unit))
    report.seconds["write"] += writer.seconds


def _one_unit(task: Task, engine: Engine, unit: Unit, writer: Writer, report: Report) -> None:
    started = time.monotonic()
    try:
        table = task.run(engine, unit)
    except Analysis360Error as error:
        error.add_note(f"at checkpoint {unit.checkpoint.name}, chunk {unit.chunk.name}")
        raise
    except Exception as error:
        where = f"checkpoint {unit.checkpoint.name}, chunk {unit.chunk.name}"
        raise EngineError(f"{where}: the engine failed: {type(error).__name__}: {error}") from error
    seconds = time.monotonic() - started
    report.seconds["run"] += seconds
    report.computed += len(unit)
    writer.add(unit, table, seconds)


def provenance(engine: Engine, checkpoint: Checkpoint) -> dict[str, str]:
    """What it takes to make the numbers again, beside settings and content."""
    from analysis360 import __version__

    return {
        "checkpoint": checkpoint.name,
        **checkpoint.place.describe(),
        "etags": " ".join(checkpoint.place.sha256(name) for name in checkpoint.weights),
        "stored_dtype": str(checkpoint.config.get("dtype") or checkpoint.config.get("torch_dtype")),
        "analysis360": __version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        **engine.describe(),
    }


def parse_shard(text: str) -> tuple[int, int]:
    """`i/n` -> (i, n) with 0 <= i < n. Raises SelectionError."""
    try:
        i, n = (int(part) for part in text.split("/"))
    except ValueError:
        raise SelectionError(f"shard {text!r}: expected i/n, such as 0/4") from None
    if not 0 <= i < n:
        raise SelectionError(f"shard {text!r}: expected i from 0 to n - 1")
    return i, n
