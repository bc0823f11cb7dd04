"""The public functions: what the command line and a notebook call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from analysis360.engines import Engine, VllmOptions, check_options, check_parts, open_engine
from analysis360.errors import NotStoredError, SelectionError
from analysis360.panel import Panel
from analysis360.results import MemorizationResult, mixed_provenance, other_modes, unfinished
from analysis360.selection import (
    compute_dtype,
    kind_of,
    opened,
    panel_of,
    pieces_of,
    planned,
    readable,
    selected,
    shown,
)
from analysis360.series import Checkpoint, Chunk, Series
from analysis360.series.selectors import Selector
from analysis360.store import Store
from analysis360.sweep import Report, sweep
from analysis360.tasks.memorization import Memorization, Settings

if TYPE_CHECKING:
    from analysis360.hub.options import HubOptions

NEAREST = 3
"""Stored settings that are named where those asked are not there."""


def memorization(
    series: Series | str | Path,
    ckpts: Selector = ":",
    *,
    chunks: Selector = "all",
    sequences: int = 1000,
    prompt_tokens: int = 32,
    continuation_tokens: int = 32,
    engine: str = "auto",
    dtype: str | None = None,
    seed: int = 0,
    shard: str = "0/1",
    compat: str | None = None,
    metric: str = "score",
    out: str | Path = "results",
    hub: HubOptions | None = None,
    pattern: str | None = None,
    vllm: VllmOptions | None = None,
    progress: bool = True,
    compute: bool = True,
) -> MemorizationResult:
    """Score what checkpoints have memorized of chunks; compute what is missing, load what is there.

    Up to `sequences` sequences of each chunk are continued from their first `prompt_tokens` ids and
    compared over the next `continuation_tokens` (LLM360, section 4.3). `chunks` is `all`, `seen`
    (only those each checkpoint had been trained on) or a selector; held-out chunks and canaries are
    scored beside them when the series has any. `dtype` defaults to the manifest's compute dtype.
    `metric` "extractible" asks only which sequences are continued word for word: it costs less, and scores are
    not known then. `shard` i/n takes every n-th checkpoint from the i-th. `hub` says where downloads live and
    how much room they may take, `pattern` which branches of a repository are checkpoints (see `open_series`),
    `vllm` how that engine runs.
    With `compute=False` only stored rows are read. Raises Analysis360Error; checkpoints that could not
    be loaded are raised last, when the others are stored.
    """
    series = opened(series, hub, pattern)
    kind = kind_of(engine, compute=compute)
    if compute:
        check_options(kind, vllm)
    how = Settings(
        prompt_tokens, continuation_tokens, seed, compute_dtype(dtype, series), kind, compat, metric
    )
    if sequences < 1:
        raise SelectionError(f"sequences: expected at least 1, found {sequences}")
    chosen = selected(series, ckpts, shard, out)
    store = Store(out, series.name)
    model = series.manifest.model
    blank = Memorization([], {}, how, model.eos_token_id, model.pad_token_id)
    if not compute and not store.folder(blank.name, blank.settings()).exists():
        raise _not_stored(store, blank)
    _check_window(series, how)
    chosen, failures = readable(chosen, progress)
    if compute:
        for first in chosen[:1]:
            check_parts(first, vllm)
        store.prepare()
    plan = planned(series, chosen, chunks)
    pieces = pieces_of(series, plan)
    panels = {
        chunk.name: panel_of(series, store, chunk, sequences, how.width, how.seed, keep=compute)
        for chunk in shown(pieces, "panels", progress)
    }
    task = replace(blank, plan=plan, panels=panels)
    report = Report()
    if compute:
        report = sweep(task, store, _opener(how, series.checkpoints[0], vllm), progress=progress)
    report.failures[:0] = failures
    result = _result(series, chosen, pieces, task, store, report)
    result.notes[:0] = [*series.notes, *_short(pieces, panels, sequences)]
    result.notes.extend(other_modes(result.rows, vllm or VllmOptions()))
    return result


def _result(
    series: Series,
    selected: list[Checkpoint],
    pieces: list[Chunk],
    task: Memorization,
    store: Store,
    report: Report,
) -> MemorizationResult:
    """What is stored of a task, and what to know of it. Raises the first failure, when all else is stored."""
    rows = store.read(task)
    notes = [*unfinished(task.units(), rows, "sequences"), *mixed_provenance(rows.provenance)]
    if not task.how.scored:
        notes.append(
            "scores are not known: only extractibility was asked; run with --metric score for scores"
        )
    notes += report.of_series(series)
    report.raise_failure()
    return MemorizationResult(series, selected, pieces, task, rows, report, notes)


def _not_stored(store: Store, task: Memorization) -> NotStoredError:
    """What was asked, and what is stored that differs from it, the nearest first."""
    found = sorted(
        (task.unlike(stored) for stored in store.settings(task.name)), key=lambda both: len(both[0])
    )
    nearest = [f"with {' '.join(there)} (not {' '.join(asked)})" for asked, there in found[:NEAREST]]
    held = f", which holds the same {', or '.join(nearest)}" if found else ""
    held += f", and {len(found) - NEAREST} more" if len(found) > NEAREST else ""
    command = "analysis360 memorization" + ("" if task.how.scored else f" --metric {task.how.metric}")
    way_out = f"give those options, or run `{command}` first" if found else f"run `{command}` first"
    return NotStoredError(f"no results of these settings in {store.path}{held}; {way_out}")


def _opener(how: Settings, like: Checkpoint, vllm: VllmOptions | None) -> Callable[[], Engine]:
    return partial(open_engine, how.engine, dtype=how.dtype, max_tokens=_longest(how), like=like, vllm=vllm)


def _longest(how: Settings) -> int:
    """Ids a row takes: vLLM scores given ids only where one more would fit."""
    return how.width + (how.engine == "vllm" and not how.scored)


def _check_window(series: Series, how: Settings) -> None:
    """Refuse sequences that are longer than the model can read. Raises SelectionError."""
    window = series.checkpoints[0].config.get("max_position_embeddings")
    if isinstance(window, int) and _longest(how) > window:
        asked = f"{how.prompt_tokens} + {how.continuation_tokens}"
        more = ", and vLLM needs room for one more; use --engine torch" if how.width <= window else ""
        raise SelectionError(f"prompt and continuation of {asked} tokens; the model reads {window}{more}")


def _short(chunks: Sequence[Chunk], panels: dict[str, Panel], sequences: int) -> list[str]:
    """One line when chunks hold fewer sequences than asked; canaries are always few."""
    short = [c for c in chunks if c.role != "canary" and len(panels[c.name]) < sequences]
    if not short:
        return []
    sizes = [len(panels[c.name]) for c in short]
    span = f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
    return [f"{len(short)} chunks hold fewer than {sequences} sequences ({span}); all of theirs are used"]
