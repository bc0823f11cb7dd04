"""The BOLD command: what the command line and a notebook call to see what checkpoints write about groups of people."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from analysis360.biases import BiasResult
from analysis360.continued import REPETITION, TEXTS, Continued
from analysis360.engines import VllmOptions, check_options, check_parts, open_engine, resolve_kind
from analysis360.errors import NotStoredError, SelectionError, StoreError
from analysis360.parts import Rows
from analysis360.places import LocalFolder, Place
from analysis360.results import mixed_provenance
from analysis360.scorers import Scorer
from analysis360.scorers.cache import Cached
from analysis360.scorers.classifier import Classifier
from analysis360.scorers.norms import Norms
from analysis360.scorers.polarity import Unigrams, Vectors
from analysis360.scorers.regard import Regard
from analysis360.scorers.sentiment import Vader
from analysis360.scorers.toxicity import ProfanityFilter, Toxicity
from analysis360.selection import compute_dtype, readable, selected, window_of
from analysis360.series import Checkpoint, Series, open_series
from analysis360.series.remote import Remote
from analysis360.series.selectors import Selector
from analysis360.store import Store
from analysis360.sweep import Report, sweep
from analysis360.tasks.bold import NEW_TOKENS, Asked, Bold, Settings
from analysis360.tasks.bold.encoding import Encoder
from analysis360.tasks.bold.measures import METRICS, PUBLISHED, Metric
from analysis360.tasks.bold.prompts import HUB, Line, Prompts, checked_domains, read_prompts
from analysis360.text import open_texts

if TYPE_CHECKING:
    from analysis360.hub.options import HubOptions

COMPAT = "analysis360"
FILTER = "profanity-filter"
"""What `toxicity` may be beside a model."""


@dataclass(frozen=True)
class Scoring:
    """What is scored, and by what beside VADER and word lists."""

    text: str = TEXTS[0]
    """`continuation` or `paper` (see `continued.TEXTS`)."""
    toxicity: str | None = None
    """A text classifier with the six labels of Jigsaw, by its id on the Hub or its folder; or `profanity-filter`."""
    regard: str | None = None
    """A text classifier with the labels positive, neutral and negative."""
    norms: str | Path | None = None
    """A CSV lexicon of psycholinguistic norms."""
    vectors: str | Path | None = None
    """A file of hard-debiased word vectors."""
    compat: str | None = None
    """`analysis360`: sentiment alone, as the published code has it."""

    def __post_init__(self) -> None:
        if self.text not in TEXTS[:2]:
            raise SelectionError(f"text {self.text!r}: expected one of {', '.join(TEXTS[:2])}")
        if self.compat not in (None, COMPAT):
            raise SelectionError(f"compat {self.compat!r}: expected {COMPAT}")
        if self.compat and replace(self, compat=None) != Scoring():
            raise SelectionError(
                f"compat {self.compat} scores the sentiment of prompt and response alone; leave out what else is asked"
            )

    @property
    def scored(self) -> str:
        """One of TEXTS."""
        return "whole" if self.compat else self.text

    def scorers(self, hub: HubOptions | None) -> list[Scorer]:
        """All that are asked. Raises Analysis360Error where one cannot be had."""
        found: list[Scorer] = [Vader()]
        if self.compat:
            return found
        found.append(Unigrams())
        if self.vectors is not None:
            found.append(Vectors(self.vectors))
        if self.norms is not None:
            found.append(Norms(self.norms))
        if self.toxicity is not None:
            found.append(
                ProfanityFilter()
                if self.toxicity == FILTER
                else Toxicity(Classifier(_place(self.toxicity, "model", hub)))
            )
        if self.regard is not None:
            found.append(Regard(Classifier(_place(self.regard, "model", hub))))
        return found

    def metrics(self, scorers: Sequence[Scorer]) -> list[Metric]:
        """Those that the scorers have numbers of."""
        columns = {(scorer.name, column) for scorer in scorers for column in scorer.columns}
        defined = PUBLISHED if self.compat else METRICS
        return [*(metric for metric in defined if (metric.scorer, metric.column) in columns), REPETITION]


def bold(
    series: Series | str | Path,
    ckpts: Selector = ":",
    *,
    prompts: str | Path | None = None,
    domains: str | Sequence[str] = "all",
    limit: int | None = None,
    samples: int = 1,
    greedy: bool = False,
    new_tokens: int = NEW_TOKENS,
    scoring: Scoring | None = None,
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
) -> BiasResult:
    """Have checkpoints continue BOLD's prompts, and score what they write; compute what is missing, load the rest.

    `prompts` is a folder of the published files or a data set on the Hub (AmazonScience/bold if left out); `limit`
    takes the first prompts of each group. Draws are as the BOLD paper's (top-k 40, top-p 0.95), `samples` of each
    prompt, each with a seed of its own; `greedy` draws nothing. `scoring` says what is scored and by what. `shard`
    i/n takes every n-th checkpoint from the i-th. With `compute=False` no model is asked: stored continuations are
    scored. Raises Analysis360Error; checkpoints that could not be loaded are raised last.
    """
    scoring, asked = scoring or Scoring(), checked_domains(domains)
    _check_counts(limit, samples, greedy)
    series = series.afresh() if isinstance(series, Series) else open_series(series, hub=hub, pattern=pattern)
    kind = resolve_kind(engine) if compute or engine == "auto" else engine
    settings = Settings.greedy if greedy else Settings
    how = settings(dtype=compute_dtype(dtype, series), engine=kind, new_tokens=new_tokens, seed=seed)
    chosen = selected(series, ckpts, shard, out)
    store = Store(out, series.name)
    scorers = scoring.scorers(hub)
    published = _prompts(prompts, store, hub, compute=compute)
    lines = published.of(asked, limit)
    if not lines:
        raise SelectionError(f"{published.source}: no prompts of {', '.join(asked)}")
    chosen, failures = readable(chosen, progress)
    task = _planned(series, chosen, published, asked, samples, Bold([], how, limit))
    report = Report(task.noun)
    if compute:
        check_options(kind, vllm)
        check_parts(chosen[0], vllm)
        store.prepare()
        _keep(published, store)
        report = _run(series, task, store, vllm, progress)
    report.failures[:0] = failures
    cached = [Cached(scorer, store.path / "scores") for scorer in scorers]
    rows = store.read(task)
    continued = Continued(
        chosen, lines, task, rows, scoring.scored, scoring.metrics(scorers), _used(cached, scoring, lines)
    )
    return _result(series, continued, store, report, progress)


def _run(series: Series, task: Bold, store: Store, vllm: VllmOptions | None, progress: bool) -> Report:
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


def _planned(
    series: Series,
    chosen: Sequence[Checkpoint],
    published: Prompts,
    domains: Sequence[str],
    samples: int,
    blank: Bold,
) -> Bold:
    """Every set of prompts under every checkpoint, as its own tokenizer reads it."""
    texts = open_texts(series, chosen)
    encoders = {text.digest: Encoder(text) for text in texts.values()}
    sets = [one for one in published.distinct() if set(one.domains) & set(domains)]
    read = {key: [Asked(one, sample, key) for one in sets for sample in range(samples)] for key in encoders}
    plan = [(one, read[texts[one.name].digest]) for one in chosen]
    return replace(blank, plan=plan, encoders=encoders, source=f"{published.source} {published.digest}")


def _result(series: Series, continued: Continued, store: Store, report: Report, progress: bool) -> BiasResult:
    """What is stored, and what to know of it. Raises the first failure, when all else is stored."""
    rows, task = continued.rows, continued.task
    if report.failures:
        first, more = report.failures[0], len(report.failures) - 1
        if more:
            first.add_note(f"and {more} more checkpoints; the others are stored")
        raise first
    if not len(rows):
        raise NotStoredError(
            f"no continuations of these settings in {store.path}; run `analysis360 bold` first"
        )
    notes = [*series.notes, *_incomplete(task, rows), *mixed_provenance(rows.provenance)]
    told = {part["trailing_blanks"] for part in rows.provenance}
    notes += [f"the blank that a prompt ends with is {blanks}" for blanks in sorted(told)]
    if report.computed:
        notes += series.moved()
    report.traffic = [traffic.line() for traffic in series.traffic if traffic.requests]
    return BiasResult(series, continued, report, notes, progress)


def _used(cached: Sequence[Cached], scoring: Scoring, lines: Sequence[Line]) -> list[Cached]:
    """Scorers with a metric that tells of some line."""
    metrics = scoring.metrics([one.scorer for one in cached])
    groups = {(line.domain, line.group) for line in lines}
    used = {metric.scorer for metric in metrics if any(metric.tells_of(*group) for group in groups)}
    return [one for one in cached if one.scorer.name in used]


def _check_counts(limit: int | None, samples: int, greedy: bool) -> None:
    if limit is not None and limit < 1:
        raise SelectionError(f"limit: expected at least 1, found {limit}")
    if samples < 1:
        raise SelectionError(f"samples: expected at least 1, found {samples}")
    if greedy and samples > 1:
        raise SelectionError(f"greedy: {samples} samples of a prompt would be equal; ask for one")


def _prompts(source: str | Path | None, store: Store, hub: HubOptions | None, *, compute: bool) -> Prompts:
    """The prompts asked for; where none are named and nothing is computed, those that were asked last."""
    folder = store.path / "prompts"
    kept = sorted(folder.glob("bold-*.json"), key=lambda file: file.stat().st_mtime)
    if source is not None or compute:
        return read_prompts(_place(source or HUB, "dataset", hub))
    if not kept:
        raise NotStoredError(f"no prompts in {folder}; run `analysis360 bold` first")
    try:
        found = json.loads(kept[-1].read_text())
        return Prompts(tuple(Line(*line) for line in found["lines"]), found["source"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{kept[-1]} holds no prompts: {error}; move it away and name --prompts") from None


def _keep(prompts: Prompts, store: Store) -> None:
    """Put the prompts beside the continuations, so that these can be scored again without a connection."""
    path = store.path / "prompts" / f"bold-{prompts.digest}.json"
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            os.utime(path, (time.time(), time.time()))
            return
        aside.write_text(json.dumps({"source": prompts.source, "lines": prompts.lines}))
        aside.replace(path)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}") from None


def _place(source: str | Path, kind: str, hub: HubOptions | None) -> Place:
    """A folder, or a repository on the Hub. Raises SelectionError for what is neither."""
    if Path(source).is_dir():
        return LocalFolder(Path(source))
    if isinstance(source, Path) or source.count("/") != 1:
        raise SelectionError(f"{source}: expected a folder, or org/name on the Hub")
    return Remote(hub).folder(source, "dataset" if kind == "dataset" else "model")


def _incomplete(task: Bold, rows: Rows) -> list[str]:
    asked, stored = sum(map(len, task.units())), len(rows)
    if stored == asked:
        return []
    return [f"{stored:,} of {asked:,} continuations are stored; the rest is not written yet"]
