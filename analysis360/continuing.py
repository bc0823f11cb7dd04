"""The BOLD command: what the command line and a notebook call to see what checkpoints write about groups of people."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from analysis360.biases import BiasResult
from analysis360.continued import REPETITION, TEXTS, Continued
from analysis360.engines import VllmOptions, check_options, check_parts
from analysis360.errors import NotStoredError, SelectionError, StoreError
from analysis360.prompting import check_counts, continue_missing, place_of, planned, result_of
from analysis360.scorers import Scorer
from analysis360.scorers.cache import Cached
from analysis360.scorers.classifier import Classifier
from analysis360.scorers.norms import Norms
from analysis360.scorers.polarity import Unigrams, Vectors
from analysis360.scorers.regard import Regard
from analysis360.scorers.sentiment import Vader
from analysis360.scorers.toxicity import ProfanityFilter, Toxicity
from analysis360.selection import (
    compute_dtype,
    kind_of,
    opened,
    readable,
    selected,
)
from analysis360.series import Series
from analysis360.series.selectors import Selector
from analysis360.store import Store
from analysis360.sweep import Report
from analysis360.tasks.bold import NEW_TOKENS, Bold, Settings
from analysis360.tasks.bold.measures import METRICS, PUBLISHED, Metric
from analysis360.tasks.bold.prompts import HUB, Line, Prompts, checked_domains, read_prompts
from analysis360.tasks.generation import FILTER

if TYPE_CHECKING:
    from analysis360.hub.options import HubOptions

COMPAT = "analysis360"


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
                else Toxicity(Classifier(place_of(self.toxicity, "model", hub)))
            )
        if self.regard is not None:
            found.append(Regard(Classifier(place_of(self.regard, "model", hub))))
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
    check_counts(limit, samples, greedy)
    series = opened(series, hub, pattern)
    kind = kind_of(engine, compute=compute)
    settings = Settings.greedy if greedy else Settings
    how = settings(dtype=compute_dtype(dtype, series), engine=kind, new_tokens=new_tokens, seed=seed)
    chosen = selected(series, ckpts, shard, out)
    store = Store(out, series.name)
    published = _prompts(prompts, store, hub, compute=compute)
    lines = published.of(asked, limit)
    if not lines:
        raise SelectionError(f"{published.source}: no prompts of {', '.join(asked)}")
    cached = [Cached(scorer, store.path / "scores") for scorer in scoring.scorers(hub)]
    chosen, failures = readable(chosen, progress)
    task, more = planned(series, chosen, published, asked, samples, Bold([], how, limit))
    report = Report(task.noun)
    if compute:
        check_options(kind, vllm)
        check_parts(chosen[0], vllm)
        store.prepare()
        _keep(published, store)
        report = continue_missing(series, task, store, vllm, progress)
    report.failures[:0] = [*failures, *more]
    rows = store.read(task)
    if not compute:
        report.stored = len(rows)
    there = [checkpoint for checkpoint, _ in task.plan]
    metrics = scoring.metrics([one.scorer for one in cached])
    continued = Continued(there, lines, task, rows, scoring.scored, metrics, _used(cached, metrics, lines))
    return result_of(series, continued, store, report, progress)


def _used(cached: Sequence[Cached], metrics: Sequence[Metric], lines: Sequence[Line]) -> list[Cached]:
    """Scorers with a metric that tells of some line."""
    groups = {(line.domain, line.group) for line in lines}
    used = {metric.scorer for metric in metrics if any(metric.tells_of(*group) for group in groups)}
    return [one for one in cached if one.scorer.name in used]


def _prompts(source: str | Path | None, store: Store, hub: HubOptions | None, *, compute: bool) -> Prompts:
    """The prompts asked for; where none are named and nothing is computed, those that were asked last."""
    folder = store.path / "prompts"
    kept = sorted(folder.glob("bold-*.json"), key=lambda file: file.stat().st_mtime)
    if source is not None or compute:
        return read_prompts(place_of(source or HUB, "dataset", hub))
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
