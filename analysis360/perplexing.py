"""The perplexity command: what the command line and a notebook call to ask how likely text or chunks are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from analysis360.corpora import Corpus, read_dataset, read_files
from analysis360.engines import VllmOptions, check_options, check_parts, open_engine
from analysis360.errors import CheckpointError, NotStoredError, SelectionError
from analysis360.joined import Joined
from analysis360.panel import Panel
from analysis360.parts import Rows, StoredUnit
from analysis360.perplexities import PerplexityResult
from analysis360.results import mixed_provenance, other_modes, unfinished
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
    window_of,
)
from analysis360.series import Checkpoint, Chunk, Series
from analysis360.series.selectors import Selector
from analysis360.store import Store
from analysis360.sweep import Report, sweep
from analysis360.tasks import Data, Unit
from analysis360.tasks.perplexity import TASK, Perplexity, Settings
from analysis360.tasks.perplexity.passages import Passages, corpus_passages, panel_passages
from analysis360.text import open_texts

if TYPE_CHECKING:
    from analysis360.hub.options import HubOptions

SEQUENCES = 100
"""Rows of each chunk, where nothing else is asked."""


class StoredData(NamedTuple):
    """A chunk or a text as the store knows it."""

    name: str
    digest: str


class Planned(NamedTuple):
    """What is asked."""

    plan: list[tuple[Checkpoint, list[Data]]]
    """Passages of each checkpoint."""
    pieces: list[Chunk]
    """Of chunks: those that are asked about."""
    panels: dict[str, Panel]
    """Of chunks: their rows."""


@dataclass(frozen=True)
class Chosen:
    """Whose answers they are, and where they are kept."""

    series: Series
    checkpoints: list[Checkpoint]
    store: Store


def perplexity(
    series: Series | str | Path,
    ckpts: Selector = ":",
    *,
    text: str | Path | Sequence[str | Path] = (),
    lines: bool = False,
    dataset: str | None = None,
    split: str = "test",
    field: str = "text",
    chunks: Selector = "all",
    sequences: int = SEQUENCES,
    window: int | None = None,
    stride: int | None = None,
    prefix: bool = True,
    engine: str = "auto",
    dtype: str | None = None,
    seed: int = 0,
    shard: str = "0/1",
    out: str | Path = "results",
    hub: HubOptions | None = None,
    pattern: str | None = None,
    vllm: VllmOptions | None = None,
    progress: bool = True,
    compute: bool = True,
) -> PerplexityResult:
    """How likely text, or the series' own chunks, are under checkpoints; compute what is missing, load what is there.

    Asked about are files of `text` (see `corpora.read_files`) and a `dataset` (`read_dataset`), or, where neither
    is given, up to `sequences` rows of each of the `chunks` (as `memorization` chooses them), of which targets are
    1 ... `window`; `seed` draws them. Text is read `window` ids at a time, `stride` targets further each time: at
    most what the model reads, and as much if left out. `prefix` says whether a document's first token is a target,
    after the series' prefix id. `shard` i/n takes every n-th checkpoint from the i-th. With `compute=False` only
    stored answers are read. Raises Analysis360Error; checkpoints that could not be loaded are raised last.
    """
    corpora = _corpora([text] if isinstance(text, str | Path) else text, lines, dataset, split, field)
    if corpora and chunks != "all":
        raise SelectionError(
            "chunks: text or a data set is asked about in place of them; leave one of the two out"
        )
    if lines and not text:
        raise SelectionError("lines: they are of files of text, and there are none; give --text")
    if sequences < 1:
        raise SelectionError(f"sequences: expected at least 1, found {sequences}")
    series = opened(series, hub, pattern)
    kind = kind_of(engine, compute=compute)
    chosen = Chosen(series, selected(series, ckpts, shard, out), Store(out, series.name))
    width = _window(series, window, rows=not corpora)
    how = Settings(
        width, width if stride is None else stride, prefix, dtype=compute_dtype(dtype, series), engine=kind
    )
    if not corpora:
        if stride is not None:
            raise SelectionError(
                "stride: chunks are asked about row by row; give text or a data set, or leave it out"
            )
        how = how.of_chunks(seed, series.manifest.model.eos_token_id)
    checkpoints, failures = readable(chosen.checkpoints, progress)
    chosen = replace(chosen, checkpoints=checkpoints)
    if compute:
        check_options(kind, vllm)
        check_parts(checkpoints[0], vllm)
        chosen.store.prepare()
    if corpora:
        how, asked, more = _text(chosen, corpora, how)
        failures += more
        chosen = replace(chosen, checkpoints=[checkpoint for checkpoint, _ in asked.plan])
    else:
        asked = _rows(chosen, chunks, sequences, how, keep=compute, progress=progress)
    task = Perplexity(asked.plan, how)
    report = Report(task.noun)
    if compute:
        report = _swept(chosen, task, vllm, progress)
    report.failures[:0] = failures
    result = _result(chosen, task, task.units(), asked, report)
    result.notes.extend(other_modes(result.rows, vllm or VllmOptions()))
    return result


def _corpora(
    paths: Sequence[str | Path], lines: bool, dataset: str | None, split: str, field: str
) -> list[Corpus]:
    found = read_files(paths, lines=lines, field=field)
    return found if dataset is None else [*found, read_dataset(dataset, split=split, field=field)]


def _window(series: Series, asked: int | None, *, rows: bool) -> int:
    """Ids read at once: as asked, or all that the model can, or that rows have. Raises SelectionError."""
    most = window_of(series)
    if asked is not None:
        if asked > most:
            raise SelectionError(f"window {asked}: the model reads {most} ids")
        return asked
    if not rows:
        return most
    known = [chunk.layout.row_tokens for chunk in series.chunks if chunk.layout.row_tokens]
    if len(known) < len(series.chunks):
        raise SelectionError(
            f"series {series.name} does not say how many ids a row has: give --window, the targets of each row"
        )
    return min([most, *(tokens - 1 for tokens in known)])


def _text(
    chosen: Chosen, corpora: Sequence[Corpus], how: Settings
) -> tuple[Settings, Planned, list[CheckpointError]]:
    """Every corpus under every checkpoint, as its own tokenizer cuts it; what is wrong with those that have none."""
    texts, failures = open_texts(chosen.series, chosen.checkpoints)
    distinct = {text.digest: text for text in texts.values()}
    cut: dict[str, list[Data]] = {
        digest: [
            corpus_passages(corpus, text, width=how.window, stride=how.stride, prefix=how.prefix)
            for corpus in corpora
        ]
        for digest, text in distinct.items()
    }
    names = [corpus.name for corpus in corpora]
    if len(set(names)) < len(names):
        raise SelectionError(f"text and data set are both called {names[-1]}; rename the file")
    plan = [(one, cut[texts[one.name].digest]) for one in chosen.checkpoints if one.name in texts]
    return replace(how, eos=next(iter(texts.values())).eos), Planned(plan, [], {}), failures


def _rows(
    chosen: Chosen, chunks: Selector, sequences: int, how: Settings, *, keep: bool, progress: bool
) -> Planned:
    """The panels of chunks and controls, as `memorization` has them."""
    series, store = chosen.series, chosen.store
    of_checkpoint = planned(series, chosen.checkpoints, chunks)
    pieces = pieces_of(series, of_checkpoint)
    assert how.seed is not None
    drawn = partial(
        panel_of, series, store, sequences=sequences, width=how.window + 1, seed=how.seed, keep=keep
    )
    panels = {chunk.name: drawn(chunk) for chunk in shown(pieces, "panels", progress)}
    passages = {chunk.name: panel_passages(chunk, panels[chunk.name]) for chunk in pieces}
    plan: list[tuple[Checkpoint, list[Data]]] = [
        (one, [passages[chunk.name] for chunk in some]) for one, some in of_checkpoint
    ]
    return Planned(plan, pieces, panels)


def _swept(chosen: Chosen, task: Perplexity, vllm: VllmOptions | None, progress: bool) -> Report:
    longest = max(one.longest for _, data in task.plan for one in data if isinstance(one, Passages))
    opener = partial(
        open_engine,
        task.how.engine,
        dtype=task.how.dtype,
        max_tokens=longest - 1,  # the last is only asked about
        like=chosen.series.checkpoints[0],
        vllm=vllm,
        share_prefixes=True,
    )
    return sweep(task, chosen.store, opener, progress=progress)


def _result(
    chosen: Chosen, task: Perplexity, units: Sequence[Unit], asked: Planned, report: Report
) -> PerplexityResult:
    """What is stored, and what to know of it. Raises the first failure, when all else is stored."""
    series, store = chosen.series, chosen.store
    rows = Rows(units, lambda: store.stored(task))
    report.raise_failure()
    if not len(rows):
        raise NotStoredError(
            f"no likelihoods of these settings in {store.path}; run `analysis360 perplexity` first"
        )
    notes = [*series.notes, *unfinished(units, rows, "windows"), *mixed_provenance(rows.provenance)]
    notes += report.of_series(series)
    names = list(dict.fromkeys(unit.chunk.name for unit in units))
    joined = text = None
    if task.how.chunks:
        joined = Joined(series, chosen.checkpoints, asked.pieces, asked.panels)
        names = [chunk.name for chunk in asked.pieces]
        try:
            text = next(iter(open_texts(series, chosen.checkpoints[:1])[0].values()))
        except CheckpointError:
            notes.append("bits per byte are not known: no checkpoint brings a tokenizer")
    return PerplexityResult(series, chosen.checkpoints, names, task, units, rows, report, joined, text, notes)


def stored_perplexities(
    series: Series,
    ckpts: Selector = ":",
    *,
    engine: str = "auto",
    dtype: str | None = None,
    out: str | Path = "results",
) -> Iterator[PerplexityResult]:
    """What is stored of some checkpoints, a result for each set of settings of this engine and dtype."""
    store, kind = Store(out, series.name), kind_of(engine, compute=False)
    chosen, _ = readable(selected(series, ckpts, "0/1", out), progress=False)
    dtype = compute_dtype(dtype, series)
    for settings in store.settings(TASK):
        if (settings["engine"], settings["dtype"]) == (kind, dtype):
            found = _stored(Chosen(series, chosen, store), Perplexity([], Settings(**settings)))
            if found is not None:
                yield found


def _stored(chosen: Chosen, task: Perplexity) -> PerplexityResult | None:
    """What is stored under a task's settings; None for nothing of these checkpoints and chunks.

    Of chunks what they are now; of texts everything: two that had one name are told apart by their content.
    """
    stored = chosen.store.stored(task)
    ends: dict[tuple[str, str, str], int] = {}
    for unit in stored:
        key = (unit.key.ckpt_digest, unit.name, unit.key.chunk_digest)
        ends[key] = max(ends.get(key, 0), unit.stop)
    asked = Planned([], [], {})
    if task.how.chunks:
        asked = _stored_rows(chosen, task.how, stored)
        known = {(chunk.name, chunk.digest) for chunk in asked.pieces}
        ends = {key: stop for key, stop in ends.items() if key[1:] in known}
    digests = {one.digest for one in chosen.checkpoints}
    contents = {key[1:] for key in ends if key[0] in digests}
    shared = {name for name, count in Counter(name for name, _ in contents).items() if count > 1}
    units = [
        Unit(one, StoredData(f"{name} {digest[:6]}" if name in shared else name, digest), 0, stop)
        for one in chosen.checkpoints
        for (ckpt, name, digest), stop in ends.items()
        if ckpt == one.digest
    ]
    return _result(chosen, task, units, asked, Report(task.noun)) if units else None


def _stored_rows(chosen: Chosen, how: Settings, stored: Sequence[StoredUnit]) -> Planned:
    """The chunks of stored units, and their panels."""
    sizes: dict[str, int] = {}
    for unit in stored:
        sizes[unit.name] = max(sizes.get(unit.name, 0), unit.stop)
    series = chosen.series
    pieces = [chunk for chunk in [*series.chunks, *series.controls] if chunk.name in sizes]
    assert how.seed is not None
    panels = {
        chunk.name: panel_of(
            series, chosen.store, chunk, sizes[chunk.name], how.window + 1, how.seed, keep=False
        )
        for chunk in pieces
    }
    return Planned([], pieces, panels)
