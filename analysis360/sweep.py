"""The loop: plan, subtract what is stored, load a checkpoint, run its units, write, go on."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import groupby

from tqdm import tqdm

from analysis360.ahead import Ahead
from analysis360.behind import Behind
from analysis360.engines import Engine
from analysis360.errors import Analysis360Error, CheckpointError, EngineError, SelectionError
from analysis360.series import Checkpoint, Series
from analysis360.store import Store, Writer
from analysis360.tasks import Task, Unit

TOGETHER = 512
"""Sequences that are handed to an engine at once, whole units: small units alone would leave it half idle."""
EVERY = 60.0
"""Seconds between lines on the progress of a run without a terminal, within one checkpoint."""


@dataclass
class Report:
    """What a sweep did, where its time went, and what it asked of the Hub."""

    noun: str = "sequences"
    """What is counted (see `Task.noun`)."""
    stored: int = 0
    """How many were in the store already."""
    computed: int = 0
    """How many were scored by this run."""
    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("start", "download", "load", "generate", "write", "idle"), 0.0)
    )
    """Of the engine's start, of downloads, loads, the engine's work and writing. They overlap. `idle` is all
    time from the engine's first work to its last that it did not work, loads included."""
    working: float = 0.0
    """Seconds from the engine's first work to its last."""
    failures: list[CheckpointError] = field(default_factory=list)
    details: list[str] = field(default_factory=list)
    """What the task has to say of the run."""
    traffic: list[str] = field(default_factory=list)
    """A line for each Hub that was asked."""

    def raise_failure(self) -> None:
        """Raise the first failure, if there was any: what could be computed is stored by then."""
        if self.failures:
            first, more = self.failures[0], len(self.failures) - 1
            if more:
                first.add_note(f"and {more} more checkpoints; the others are stored")
            raise first

    def of_series(self, series: Series) -> list[str]:
        """Note what was asked of the series' Hubs; a line for each branch that moved while it was computed."""
        moved = series.moved() if self.computed else []
        self.traffic = [traffic.line() for traffic in series.traffic if traffic.requests]
        return moved

    def line(self) -> str:
        """One line for the end of a run."""
        if not self.computed:
            return f"{self.stored:,} {self.noun} were stored already; nothing to compute"
        spent = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.seconds.items())
        rate = self.computed / max(self.seconds["generate"], 1e-9)
        share = self.seconds["idle"] / max(self.working, 1e-9)
        return (
            f"{self.computed:,} {self.noun} scored ({rate:,.0f} a second), {self.stored:,} stored already; "
            f"{spent} ({share:.0%})"
        )


def sweep(
    task: Task,
    store: Store,
    engine: Callable[[], Engine],
    *,
    progress: bool = True,
    after: Callable[[Checkpoint], None] | None = None,
) -> Report:
    """Compute what is missing, checkpoint by checkpoint, and store it. `after` is told of each that is.

    The engine is opened only when something is missing. A checkpoint that cannot be loaded is
    reported in the end and does not stop the others. Interrupted, every unit is kept but those that the
    engine has in hand.
    """
    store.prepare()
    store.tidy(task)
    missing = store.missing(task)
    report = Report(task.noun, sum(map(len, task.units())) - sum(map(len, missing)))
    if not missing:
        return report
    started = time.monotonic()
    groups = list(_by_checkpoint(missing))
    ahead = Ahead([checkpoint for checkpoint, _ in groups])
    running: Engine | None = None
    try:
        running = engine()
        report.seconds["start"] = time.monotonic() - started
        with Progress(sum(map(len, missing)), progress, task.noun) as shown:
            Sweep(task, store, running, report, ahead, shown, after).run(groups)
    finally:
        ahead.close()
        if running is not None:
            running.close()
    return report


class Progress:
    """How far a sweep is, on stderr: a bar on a terminal; elsewhere, in the log of a job, a plain line now and then."""

    def __init__(self, total: int, wanted: bool = True, noun: str = "sequences") -> None:
        self._noun = noun
        self._bar = tqdm(total=total, unit=f" {noun}", disable=None if wanted else True, leave=False)
        self._plain = wanted and not sys.stderr.isatty()
        self._total, self._done = total, 0
        self._began = self._told = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def begin(self, checkpoint: str) -> None:
        """A checkpoint's turn."""
        self._name = checkpoint
        self._bar.set_description(checkpoint)

    def update(self, sequences: int, last: bool = False) -> None:
        """So many more are done, the `last` of the checkpoint or not."""
        self._bar.update(sequences)
        self._done += sequences
        now = time.monotonic()
        if self._plain and (last or now - self._told > EVERY):
            self._told, spent = now, now - self._began
            left = spent / max(self._done, 1) * (self._total - self._done)
            times = [tqdm.format_interval(seconds) for seconds in (spent, left)]
            done = f"{self._done:,} of {self._total:,} {self._noun}"
            print(f"{self._name}: {done}, {times[0]}, about {times[1]} left", file=sys.stderr, flush=True)


@dataclass
class Sweep:
    """One sweep under way: the engine works in this thread, downloads and writing go on beside it."""

    task: Task
    store: Store
    engine: Engine
    report: Report
    ahead: Ahead
    progress: Progress
    after: Callable[[Checkpoint], None] | None
    behind: Behind = field(default_factory=Behind)
    began: float | None = None
    """When the engine first worked."""

    def run(self, groups: Sequence[tuple[Checkpoint, list[Unit]]]) -> None:
        """Every checkpoint with its missing units."""
        spent = self.report.seconds
        try:
            for checkpoint, units in groups:
                self.progress.begin(checkpoint.name)
                if not self._there(checkpoint):
                    self.progress.update(sum(map(len, units)), last=True)
                    continue
                try:
                    self._one_checkpoint(checkpoint, units)
                finally:
                    checkpoint.release()
                if self.after is not None:
                    self.behind.settle()
                    self.after(checkpoint)
        finally:
            self.behind.close()
            spent["download"], spent["write"] = self.ahead.seconds, self.behind.seconds
            spent["idle"] = self.report.working - spent["generate"]

    def _there(self, checkpoint: Checkpoint) -> bool:
        """Wait for a checkpoint's files; False, and a failure reported, where they are not what they should be."""
        try:
            self.ahead.take()
        except CheckpointError as error:
            error.add_note(f"at checkpoint {checkpoint.name}")
            self.report.failures.append(_light(error))
            return False
        return True

    def _one_checkpoint(self, checkpoint: Checkpoint, units: list[Unit]) -> None:
        if not self._load(checkpoint):
            self.progress.update(sum(map(len, units)), last=True)
            return
        writer = self.store.writer(self.task, checkpoint.name, self._provenance(checkpoint))
        try:
            for together in _together(units):
                self._score(together, writer)
                self.progress.update(sum(map(len, together)), last=together[-1] is units[-1])
        finally:
            self.behind.put(writer.close)

    def _provenance(self, checkpoint: Checkpoint) -> dict[str, str]:
        return provenance(self.engine, checkpoint) | self.task.describe(checkpoint)

    def _load(self, checkpoint: Checkpoint) -> bool:
        started = time.monotonic()
        try:
            self.engine.load(checkpoint)
            if replace(checkpoint).digest != checkpoint.digest:
                raise CheckpointError(
                    f"checkpoint {checkpoint.name}: {checkpoint.place.where} changed since the run began"
                )
        except CheckpointError as error:
            self.report.failures.append(_light(error))
            return False
        except Analysis360Error:
            raise
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise EngineError(f"checkpoint {checkpoint.name}: the engine failed: {what}") from error
        finally:
            self.report.seconds["load"] += time.monotonic() - started
        return True

    def _score(self, units: list[Unit], writer: Writer) -> None:
        started = time.monotonic()
        self.began = self.began or started
        try:
            tables = self.task.run(self.engine, units)
        except Analysis360Error as error:
            error.add_note(f"at {self._where(units)}")
            raise
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise EngineError(f"{self._where(units)}: the engine failed: {what}") from error
        ended = time.monotonic()
        sequences = sum(map(len, units))
        self.report.seconds["generate"] += ended - started
        self.report.working = ended - self.began
        self.report.computed += sequences

        def write() -> None:
            for unit, table in zip(units, tables, strict=True):
                writer.add(unit, table, (ended - started) * len(unit) / sequences)

        self.behind.put(write)

    def _where(self, units: list[Unit]) -> str:
        noun, first, last = self.task.data_noun, units[0].chunk.name, units[-1].chunk.name
        data = f"{noun} {first}" if first == last else f"{noun}s {first} to {last}"
        return f"checkpoint {units[0].checkpoint.name}, {data}"


def _by_checkpoint(units: list[Unit]) -> Iterator[tuple[Checkpoint, list[Unit]]]:
    for _, group in groupby(units, key=lambda unit: unit.checkpoint.index):
        same = list(group)
        yield same[0].checkpoint, same


def _together(units: list[Unit]) -> Iterator[list[Unit]]:
    """Units of at least TOGETHER sequences, but for the last, in order: what an engine gets at once."""
    some: list[Unit] = []
    for unit in units:
        some.append(unit)
        if sum(len(one) * one.weight for one in some) >= TOGETHER:
            yield some
            some = []
    if some:
        yield some


def _light(error: CheckpointError) -> CheckpointError:
    """The error without the frames that raised it: they would hold a model each until the end of the sweep."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error


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
