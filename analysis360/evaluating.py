"""The leaderboard command: what the command line and a notebook call to ask lm-eval's tasks of every checkpoint."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from analysis360.code_results import stored_summary
from analysis360.digests import digest_of
from analysis360.engines import VllmOptions, check_options, check_parts, open_engine
from analysis360.errors import CheckpointError, NotStoredError, SelectionError
from analysis360.evaluations import EvaluationResult, gather, planned_units, stored_units, unevenness
from analysis360.parts import Rows
from analysis360.results import mixed_provenance
from analysis360.selection import (
    compute_dtype,
    kind_of,
    opened,
    readable,
    selected,
    window_of,
)
from analysis360.series import Checkpoint, Series
from analysis360.series.selectors import Selector
from analysis360.store import Store
from analysis360.sweep import Report, sweep
from analysis360.tasks import Data, Unit
from analysis360.tasks.leaderboard import SHOTS_SEED, Leaderboard, Settings
from analysis360.tasks.leaderboard.suites import STORED, SUITE, Benchmark, benchmarks, stored_benchmarks
from analysis360.text import open_texts

if TYPE_CHECKING:
    from analysis360.hub.options import HubOptions
    from analysis360.tasks.leaderboard.adapter import EngineLM
    from analysis360.tasks.leaderboard.questions import Loaded, QuestionSet


@dataclass(frozen=True)
class Asking:
    """What a run needs beside what is asked."""

    include: Path | None
    """Folder of further task files."""
    vllm: VllmOptions | None
    progress: bool


def leaderboard(
    series: Series | str | Path,
    ckpts: Selector = ":",
    *,
    tasks: str | Sequence[str] = SUITE,
    shots: int | None = None,
    limit: int | None = None,
    include: str | Path | None = None,
    engine: str = "auto",
    dtype: str | None = None,
    seed: int = SHOTS_SEED,
    shard: str = "0/1",
    out: str | Path = "results",
    hub: HubOptions | None = None,
    pattern: str | None = None,
    vllm: VllmOptions | None = None,
    progress: bool = True,
    compute: bool = True,
) -> EvaluationResult:
    """Ask lm-eval's tasks of checkpoints; compute what is missing, load what is there.

    `tasks` is `open-llm` (ARC, HellaSwag, MMLU and TruthfulQA as the leaderboard of 2023 has them) or names of
    lm-eval's tasks and groups; `include` is a folder of further task files. `shots` overrides the number of
    examples before each question, `limit` takes the first questions of each task. `seed` draws examples and
    samples. `shard` i/n takes every n-th checkpoint from the i-th; `vllm` says how that engine runs. With
    `compute=False` only stored answers are read, and `tasks` may be `stored`: all there are. Raises
    Analysis360Error; checkpoints that could not be loaded are raised last.
    """
    asked = [] if tasks == STORED and not compute else benchmarks(tasks, shots)
    if limit is not None and limit < 1:
        raise SelectionError(f"limit: expected at least 1, found {limit}")
    series = opened(series, hub, pattern)
    kind = kind_of(engine, compute=compute)
    chosen = selected(series, ckpts, shard, out)
    store = Store(out, series.name)
    blank = Leaderboard([], Settings(compute_dtype(dtype, series), kind, seed), limit)
    chosen, failures = readable(chosen, progress)
    if not compute:
        return _read(series, chosen, asked, blank, store, Report(failures=failures))
    check_options(kind, vllm)
    check_parts(chosen[0], vllm)
    store.prepare()
    how = Asking(None if include is None else Path(include), vllm, progress)
    asked, task, report = _run(series, chosen, asked, blank, store, how)
    report.failures[:0] = failures
    return _read(series, chosen, asked, task, store, report)


def _run(
    series: Series,
    chosen: list[Checkpoint],
    asked: list[Benchmark],
    blank: Leaderboard,
    store: Store,
    how: Asking,
) -> tuple[list[Benchmark], Leaderboard, Report]:
    """Load the questions, ask what is missing, and write lm-eval's own files."""
    from analysis360.tasks.leaderboard.questions import load_questions

    began = time.monotonic()
    loaded = load_questions(asked, include=how.include, seed=blank.how.seed)
    task, failures = _planned(series, chosen, loaded.sets, blank)
    took = [f"questions loaded in {time.monotonic() - began:.1f} s"]
    began, longest = time.monotonic(), _encoded(task, store)
    if longest:
        took.append(f"built and cut into ids in {time.monotonic() - began:.1f} s")
    opener = partial(
        open_engine,
        blank.how.engine,
        dtype=blank.how.dtype,
        max_tokens=min(longest, window_of(series)),
        like=series.checkpoints[0],
        vllm=how.vllm,
        tokenizer=next(iter(task.models.values())).encoder.text.folder,
        share_prefixes=True,
    )
    sets_of = {checkpoint.name: sets for checkpoint, sets in task.plan}

    def export(checkpoint: Checkpoint) -> None:
        _export(series, checkpoint, sets_of[checkpoint.name], task, store, loaded)

    report = sweep(task, store, opener, progress=how.progress, after=export)
    for checkpoint, _ in task.plan:
        export(checkpoint)  # also those that were stored already
    report.details = [", ".join(took), *_shared(task.models.values())]
    report.failures[:0] = failures
    return loaded.asked, task, report


def stored_benchmarks_of(
    series: Series, ckpts: Selector, *, engine: str, dtype: str | None, out: str | Path
) -> pd.DataFrame:
    """A row per (checkpoint, benchmark) of all that is stored, programs included (see `EvaluationResult.summary`)."""
    chosen, _ = readable(series.select(ckpts), progress=False)
    kind = kind_of(engine, compute=False)
    found = [stored_summary(series, chosen, Store(out, series.name), kind, compute_dtype(dtype, series))]
    with contextlib.suppress(NotStoredError):
        answers = leaderboard(
            series, ckpts, tasks=STORED, engine=engine, dtype=dtype, out=out, compute=False, progress=False
        )
        found.insert(0, answers.summary())
    return pd.concat([one for one in found if len(one)] or found[:1], ignore_index=True)


def _planned(
    series: Series, chosen: Sequence[Checkpoint], sets: Sequence[QuestionSet], blank: Leaderboard
) -> tuple[Leaderboard, list[CheckpointError]]:
    """Every set under every checkpoint, as its own tokenizer reads it; and those that have none.

    Raises SelectionError where texts are to be generated and checkpoints differ in their tokenizers.
    """
    from analysis360.tasks.leaderboard.adapter import EngineLM
    from analysis360.tasks.leaderboard.encoding import Encoder

    window = window_of(series)
    texts, failures = open_texts(series, chosen)
    keys = {name: digest_of([text.digest, window]) for name, text in texts.items()}
    models = {
        keys[name]: EngineLM(Encoder(text, window), seed=blank.how.seed) for name, text in texts.items()
    }
    read = {key: [replace(one, text=key) for one in sets] for key in models}
    generated = [one.name for one in sets if one.task.OUTPUT_TYPE == "generate_until"]
    if generated and len({text.folder for text in texts.values()}) > 1:
        raise SelectionError(
            f"task {generated[0]} has checkpoints write text, and they do not all have one tokenizer; select fewer"
        )
    plan = [(one, read[keys[one.name]]) for one in chosen if one.name in keys]
    return replace(blank, plan=plan, models=models), failures


def _encoded(task: Leaderboard, store: Store) -> int:
    """Build and encode what is missing, once for all checkpoints; returns ids of the longest sequence, 0 if none."""
    longest = 0
    needed: dict[tuple[str, str], QuestionSet] = {}
    for unit in store.missing(task):
        needed[unit.chunk.name, unit.chunk.digest] = unit.chunk  # type: ignore[assignment]  # they are ours
    for questions in needed.values():
        size = task.asked(questions)
        questions.build(size)
        longest = max(longest, task.models[questions.text].encoder.prepare(questions.requests(0, size)))
    return longest


def _shared(models: Iterable[EngineLM]) -> list[str]:
    """How much was read once that would have been read again, and what was cut."""
    models = list(models)
    asked, distinct = sum(one.asked for one in models), sum(one.distinct for one in models)
    cut = sum(one.encoder.cut for one in models)
    lines = []
    if asked:
        lines.append(
            f"{asked:,} ids in all sequences, {distinct:,} with what they begin with in common read once "
            f"({asked / distinct:.1f} times fewer)"
        )
    if cut:
        lines.append(f"{cut:,} contexts were longer than the window and lost their beginning")
    return lines


def _export(
    series: Series,
    checkpoint: Checkpoint,
    sets: Sequence[Data],
    task: Leaderboard,
    store: Store,
    loaded: Loaded,
) -> None:
    """lm-eval's file of one checkpoint, where all of its answers are stored and it is not there yet."""
    from analysis360.tasks.leaderboard.export import results_of, write_results

    units = [Unit(checkpoint, one, 0, task.asked(one)) for one in sets]
    name = digest_of([sorted(loaded.groups), sorted([*unit.key, unit.stop] for unit in units)])[:8]
    folder = store.path / "lm-eval" / store.folder(task.name, task.settings()).name / checkpoint.name
    file = folder / f"results_{name}.json"
    if file.exists():
        return
    rows = Rows(units, lambda: store.stored(task))
    if rows.stored != [len(unit) for unit in units]:
        return
    values = {
        unit.chunk.name: answers.values() for unit, answers in zip(units, gather(units, rows), strict=True)
    }
    found = results_of(loaded.sets, values, loaded.groups)
    about = {
        "model": "analysis360",
        "model_args": f"series={series.name},ckpt={checkpoint.name}",
        "limit": task.limit,
    }
    about |= {"batch_size": None, "model_dtype": task.how.dtype, **task.describe(checkpoint)}
    write_results(file, found | {"config": about, "model_name": checkpoint.name})


def _read(
    series: Series,
    chosen: Sequence[Checkpoint],
    asked: Sequence[Benchmark],
    task: Leaderboard,
    store: Store,
    report: Report,
) -> EvaluationResult:
    """What is stored of the asked. Raises the first failure when all else is read, NotStoredError for nothing."""
    units, notes = planned_units(task, asked), list[str]()
    if not task.plan:
        stored = store.stored(task)
        asked = asked or stored_benchmarks({unit.name for unit in stored})
        units, notes = stored_units(chosen, stored, asked, task.limit)
    report.raise_failure()
    if not units:
        names = ", ".join(one.task for one in asked) or "any task"
        raise NotStoredError(
            f"no answers to {names} with {task.how.engine} {task.how.dtype} in {store.path}; "
            "run `analysis360 leaderboard` first"
        )
    rows = Rows(units, lambda: store.stored(task))
    notes += [*unevenness(units, rows), *mixed_provenance(rows.provenance)]
    notes += report.of_series(series)
    return EvaluationResult(series, chosen, asked, task, units, rows, report, [*series.notes, *notes])
