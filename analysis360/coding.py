"""The code command: what the command line and a notebook call to have every checkpoint write programs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from analysis360.code_results import CodeResult, read_correct
from analysis360.engines import Engine, VllmOptions, check_options, check_parts, open_engine
from analysis360.errors import CheckpointError, NotStoredError, SelectionError
from analysis360.parts import Rows
from analysis360.places import LocalFolder, Place
from analysis360.results import mixed_provenance, unfinished
from analysis360.selection import (
    compute_dtype,
    kind_of,
    opened,
    readable,
    selected,
    window_of,
)
from analysis360.series import Checkpoint, Series
from analysis360.series.remote import Remote
from analysis360.series.selectors import Selector
from analysis360.store import Store
from analysis360.sweep import Report, sweep
from analysis360.tasks import Unit
from analysis360.tasks.code.problems import BENCHMARKS, read_problems
from analysis360.tasks.code.prompts import style
from analysis360.tasks.code.sandbox import Limits, check_sandbox
from analysis360.tasks.code.task import Asked, Code, Questions, Settings, asked_of
from analysis360.text import Text, open_texts

if TYPE_CHECKING:
    from analysis360.hub.options import HubOptions


def code_evaluation(
    series: Series | str | Path,
    ckpts: Selector = ":",
    *,
    benchmarks: str | Sequence[str] = tuple(BENCHMARKS),
    data: str | Path | None = None,
    mbpp_prompt: str | None = None,
    samples: int = 1,
    temperature: float = 0.0,
    top_p: float = 1.0,
    k: int | Sequence[int] = 1,
    new_tokens: int = 512,
    seconds: int = Limits.seconds,
    limit: int | None = None,
    engine: str = "auto",
    dtype: str | None = None,
    seed: int = 0,
    shard: str = "0/1",
    out: str | Path = "results",
    workers: int | None = None,
    hub: HubOptions | None = None,
    pattern: str | None = None,
    vllm: VllmOptions | None = None,
    progress: bool = True,
    compute: bool = True,
) -> CodeResult:
    """Have checkpoints write programs for HumanEval and MBPP, and judge them; compute what is missing, load the rest.

    `data` is a folder of the problems (see `tasks/code/problems.py`), the Hub's where it is left out; `limit` takes
    the first problems of each. Each problem is solved `samples` times: greedily at temperature 0, otherwise with a
    stream of draws of its own for each program. `k` are those of pass@k. A program may take `new_tokens` ids, and
    `seconds` of processor time; `workers` are judged at a time. `shard` i/n takes every n-th checkpoint from the
    i-th; `vllm` says how that engine runs. With `compute=False` only stored programs are read.
    Raises Analysis360Error; SandboxError before anything is computed where programs cannot be judged; checkpoints
    that could not be loaded are raised last.
    """
    series = opened(series, hub, pattern)
    kind = kind_of(engine, compute=compute)
    limits = Limits(seconds=seconds)
    how = Settings(samples, temperature, top_p, new_tokens, seed, compute_dtype(dtype, series), kind, limits)
    ks = _ks(k, samples)
    if limit is not None and limit < 1:
        raise SelectionError(f"limit: expected at least 1, found {limit}")
    questions = _questions(benchmarks, mbpp_prompt, None if data is None else Path(data), hub)
    chosen, failures = readable(selected(series, ckpts, shard, out), progress)
    if compute:
        check_sandbox()
        check_options(kind, vllm)
        check_parts(chosen[0], vllm)
    plan, unread = _plan(series, chosen, questions)
    task = Code(plan, how, limit, workers)
    store = Store(out, series.name)
    if compute:
        asked = store.missing(task) or task.units()[:1]  # nothing missing: none is opened
        opener = _opener(series, task, asked, vllm)
        report = sweep(task, store, opener, progress=progress)
    else:
        report = Report(task.noun, len(store.read(task)))
    report.failures[:0] = [*failures, *unread]
    return _result(series, chosen, task, ks, store, report)


def _ks(k: int | Sequence[int], samples: int) -> tuple[int, ...]:
    ks = (k,) if isinstance(k, int) else tuple(k)
    for one in ks:
        if not 1 <= one <= samples:
            raise SelectionError(
                f"pass@{one}: expected k from 1 to the number of samples, which is {samples}"
            )
    return ks


def _questions(
    benchmarks: str | Sequence[str], mbpp_prompt: str | None, data: Path | None, hub: HubOptions | None
) -> list[Questions]:
    """Every benchmark once, in the order asked. Raises SelectionError, MissingError, DataError."""
    names = benchmarks.split(",") if isinstance(benchmarks, str) else benchmarks
    styles = {name: style(name, mbpp_prompt if name == "mbpp" else None) for name in dict.fromkeys(names)}
    if data is not None and not data.is_dir():
        raise SelectionError(f"data {data}: no such folder; expected one of humaneval.jsonl and mbpp.jsonl")
    remote = Remote(hub) if data is None else None
    found = []
    for name, way in styles.items():
        place: Place = (
            remote.folder(BENCHMARKS[name].repository, "dataset") if remote else LocalFolder(data or Path())
        )
        found.append(Questions(read_problems(name, place), way))
        _ = found[-1].prompts  # what it lacks is said now
    return found


def _plan(
    series: Series, chosen: Sequence[Checkpoint], questions: Sequence[Questions]
) -> tuple[list[tuple[Checkpoint, list[Asked]]], list[CheckpointError]]:
    """Every benchmark under every checkpoint, as its tokenizer reads it; ids are made once a tokenizer.

    And what is wrong with checkpoints that have none.
    """
    texts, failures = open_texts(series, chosen)
    asked = {text.digest: [Asked(one, text) for one in questions] for text in texts.values()}
    there = [checkpoint for checkpoint in chosen if checkpoint.name in texts]
    return [(checkpoint, asked[texts[checkpoint.name].digest]) for checkpoint in there], failures


def _opener(series: Series, task: Code, units: Sequence[Unit], vllm: VllmOptions | None) -> partial[Engine]:
    """What opens an engine for the units.

    Raises SelectionError where prompt and program together are longer than the model reads, or tokenizers differ.
    """
    text = _text_of(units)
    asked = {id(unit.chunk): asked_of(unit) for unit in units}
    longest = max((len(ids) for one in asked.values() for ids in one.ids), default=0)
    window, new = window_of(series), task.how.new_tokens
    if longest >= window:
        raise SelectionError(
            f"prompts of up to {longest} ids; the model reads {window}, so it cannot write any program after them"
        )
    if longest + new > window:
        raise SelectionError(
            f"prompts of up to {longest} ids and programs of up to {new}; the model reads {window}; "
            f"give fewer --new-tokens"
        )
    return partial(
        open_engine,
        task.how.engine,
        dtype=task.how.dtype,
        max_tokens=longest + new,
        like=series.checkpoints[0],
        vllm=vllm,
        tokenizer=text.folder,
        share_prefixes=task.how.samples > 1,
    )


def _text_of(units: Sequence[Unit]) -> Text:
    """The tokenizer in whose text an engine looks for stops. Raises SelectionError where checkpoints differ in it."""
    text = asked_of(units[0]).text
    for unit in units:
        if asked_of(unit).text.digest != text.digest:
            raise SelectionError(
                f"checkpoints {units[0].checkpoint.name} and {unit.checkpoint.name} have different tokenizers, and "
                "an engine writes with one; select checkpoints that share theirs, and the others in a run of their own"
            )
    return text


def _result(
    series: Series, chosen: list[Checkpoint], task: Code, ks: tuple[int, ...], store: Store, report: Report
) -> CodeResult:
    """What is stored of the task. Raises the first failure when all else is stored, NotStoredError for nothing."""
    report.raise_failure()
    rows = Rows(task.wholes(), lambda: store.stored(task))
    if not len(rows):
        raise NotStoredError(f"no programs of these settings in {store.path}; run `analysis360 code` first")
    notes = [*series.notes, *mixed_provenance(rows.provenance)]
    notes += unfinished(task.wholes(), rows, "problems", "written")
    notes += report.of_series(series)
    return CodeResult(series, chosen, task, ks, rows, report, read_correct(task, rows), notes)
