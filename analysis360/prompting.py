"""Having checkpoints continue prompts: what BOLD and generation of toxic text have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from analysis360.biases import BiasResult
from analysis360.continued import Continued
from analysis360.engines import VllmOptions, open_engine
from analysis360.errors import CheckpointError, NotStoredError, SelectionError
from analysis360.places import LocalFolder, Place
from analysis360.results import mixed_provenance, unfinished
from analysis360.selection import window_of
from analysis360.series import Checkpoint, Series
from analysis360.series.remote import Remote
from analysis360.store import Store
from analysis360.sweep import Report, sweep
from analysis360.tasks.bold import Asked, Bold
from analysis360.tasks.bold.encoding import Encoder
from analysis360.tasks.bold.prompts import Prompts
from analysis360.text import open_texts

if TYPE_CHECKING:
    from analysis360.hub.options import HubOptions

Continuing = TypeVar("Continuing", bound=Bold)


def planned(
    series: Series,
    chosen: Sequence[Checkpoint],
    published: Prompts,
    parts: Sequence[str],
    samples: int,
    blank: Continuing,
) -> tuple[Continuing, list[CheckpointError]]:
    """Every set of prompts of some parts (see `Prompts.apart`) under every checkpoint, as its own tokenizer reads it.

    And what is wrong with checkpoints that have none.
    """
    texts, failures = open_texts(series, chosen)
    encoders = {text.digest: Encoder(text) for text in texts.values()}
    sets = [one for one in published.distinct() if set(one.parts) & set(parts)]
    read = {key: [Asked(one, sample, key) for one in sets for sample in range(samples)] for key in encoders}
    plan = [(one, read[texts[one.name].digest]) for one in chosen if one.name in texts]
    source = f"{published.source} {published.digest}"
    return replace(blank, plan=plan, encoders=encoders, source=source), failures


def continue_missing(
    series: Series, task: Bold, store: Store, vllm: VllmOptions | None, progress: bool
) -> Report:
    """Continue what is missing."""
    longest = 0
    for unit in store.missing(task):
        asked: Asked = unit.chunk  # type: ignore[assignment]  # they are ours
        some = asked.distinct.prompts[unit.start : unit.stop]
        longest = max(longest, task.encoders[asked.text].prepare(some))
    window = window_of(series)
    if longest + task.how.new_tokens > window:
        raise SelectionError(
            f"prompts of up to {longest} ids and {task.how.new_tokens} new ones; the model reads {window}"
        )
    opener = partial(
        open_engine,
        task.how.engine,
        dtype=task.how.dtype,
        max_tokens=longest + task.how.new_tokens,
        like=series.checkpoints[0],
        vllm=vllm,
    )
    return sweep(task, store, opener, progress=progress)


def result_of(
    series: Series, continued: Continued, store: Store, report: Report, progress: bool
) -> BiasResult:
    """What is stored, and what to know of it. Raises the first failure, when all else is stored."""
    rows, task = continued.rows, continued.task
    report.raise_failure()
    if not len(rows):
        raise NotStoredError(
            f"no continuations of these settings in {store.path}; run `analysis360 {task.name}` first"
        )
    notes = [
        *series.notes,
        *unfinished(task.units(), rows, "continuations", "written"),
        *mixed_provenance(rows.provenance),
    ]
    told = {part["trailing_blanks"] for part in rows.provenance}
    notes += [f"the blank that a prompt ends with is {blanks}" for blanks in sorted(told)]
    notes += report.of_series(series)
    return BiasResult(series, continued, report, notes, progress)


def check_counts(limit: int | None, samples: int, greedy: bool) -> None:
    """Raises SelectionError for what no run could do."""
    if limit is not None and limit < 1:
        raise SelectionError(f"limit: expected at least 1, found {limit}")
    if samples < 1:
        raise SelectionError(f"samples: expected at least 1, found {samples}")
    if greedy and samples > 1:
        raise SelectionError(f"greedy: {samples} samples of a prompt would be equal; ask for one")


def place_of(source: str | Path, kind: str, hub: HubOptions | None) -> Place:
    """A folder, or a repository on the Hub. Raises SelectionError for what is neither."""
    if Path(source).is_dir():
        return LocalFolder(Path(source))
    if isinstance(source, Path) or source.count("/") != 1 or source.startswith(("/", ".", "~")):
        raise SelectionError(f"{source}: expected a folder, or org/name on the Hub")
    return Remote(hub).folder(source, "dataset" if kind == "dataset" else "model")
