"""The toxicity command: what share of what checkpoints write, after prompts that invite it, is toxic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from analysis360.biases import BiasResult
from analysis360.continued import REPETITION, TEXTS, Continued
from analysis360.corpora import read_sets
from analysis360.engines import VllmOptions, check_options, check_parts
from analysis360.errors import SelectionError
from analysis360.prompting import check_counts, continue_missing, place_of, planned, result_of
from analysis360.scorers import Scorer
from analysis360.scorers.cache import Cached
from analysis360.scorers.classifier import Classifier
from analysis360.scorers.labels import AnyLabel
from analysis360.scorers.toxicity import ProfanityFilter
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
from analysis360.tasks.bold import Settings
from analysis360.tasks.bold.measures import Metric, Share
from analysis360.tasks.bold.prompts import Prompts
from analysis360.tasks.generation import FILTER, Continuations, Generation, read_generation

if TYPE_CHECKING:
    from analysis360.hub.options import HubOptions


def toxic_generation(
    series: Series | str | Path,
    ckpts: Selector = ":",
    *,
    task: str | Path = "toxigen",
    prompts: str | Path | None = None,
    sets: str | Sequence[str] = "all",
    limit: int | None = None,
    samples: int = 1,
    greedy: bool = False,
    scorer: str | None = None,
    labels: Sequence[str] | None = None,
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
    """Have checkpoints continue prompts, and judge what they write; compute what is missing, load the rest.

    `task` is `toxigen` or a TOML file like its own; `prompts` and `scorer` say where prompts and classifier are
    instead of those it names, `labels` which of the classifier's mean toxic; `profanity-filter` is a scorer without
    a model, and no judge of toxicity. `sets` of prompts are splits of the data set, or files of a folder, `limit`
    takes some of each. Each of the `samples` of a prompt has a seed of its own; `greedy` draws nothing. `shard` i/n
    takes every n-th checkpoint from the i-th. With `compute=False` no model is asked: stored continuations are
    judged. Raises Analysis360Error; checkpoints that could not be loaded are raised last.
    """
    check_counts(limit, samples, greedy)
    given = {"dataset": prompts and str(prompts), "model": scorer, "labels": labels and tuple(labels)}
    asked = read_generation(task, **{key: value for key, value in given.items() if value})
    if asked.model == FILTER and labels:
        raise SelectionError(f"labels: {FILTER} has none to choose from; leave them out")
    series = opened(series, hub, pattern)
    kind = kind_of(engine, compute=compute)
    how = _settings(asked, greedy, dtype=compute_dtype(dtype, series), engine=kind, seed=seed)
    chosen = selected(series, ckpts, shard, out)
    store = Store(out, series.name)
    judge, told = _judge(asked, hub)
    cached = Cached(judge, store.path / "scores")
    published = asked.prompts(read_sets(asked.dataset, field=asked.field))
    some = _sets(published, sets)
    chosen, failures = readable(chosen, progress)
    blank = Continuations([], how, limit, name=asked.name)
    plan, more = planned(series, chosen, published, some, samples, blank)
    report = Report(plan.noun)
    if compute:
        check_options(kind, vllm)
        check_parts(chosen[0], vllm)
        store.prepare()
        report = continue_missing(series, plan, store, vllm, progress)
    report.failures[:0] = [*failures, *more]
    continued = Continued(
        [checkpoint for checkpoint, _ in plan.plan],
        published.of(some, limit),
        plan,
        store.read(plan),
        TEXTS[0],
        [told, replace(REPETITION, domains=(asked.name,))],
        [cached],
    )
    result = result_of(series, continued, store, report, progress)
    if isinstance(judge, ProfanityFilter):
        result.notes.append("judged by a filter of profanity, which is not toxicity")
    return result


def _settings(asked: Generation, greedy: bool, **how: str | int) -> Settings:
    made = Settings.greedy(**how) if greedy else Settings(**how)  # type: ignore[arg-type]
    if greedy:
        return replace(made, new_tokens=asked.new_tokens)
    drawn = {"temperature": asked.temperature, "top_p": asked.top_p, "top_k": asked.top_k}
    return replace(made, new_tokens=asked.new_tokens, **drawn)  # type: ignore[arg-type]


def _judge(asked: Generation, hub: HubOptions | None) -> tuple[Scorer, Metric]:
    """What judges, and what it tells: toxicity or, named for what it is, profanity. Raises Analysis360Error."""
    judge: Scorer
    if asked.model == FILTER:
        judge, name, share = ProfanityFilter(), "profanity", "profane"
    else:
        judge = AnyLabel(Classifier(place_of(asked.model, "model", hub)), asked.labels)
        name, share = "toxicity", "toxic"
    shares = (Share(share, asked.threshold),)
    return judge, Metric(name, judge.name, judge.columns[0], shares, (asked.name,))


def _sets(published: Prompts, names: str | Sequence[str]) -> list[str]:
    """The sets of prompts that are asked for, in the data set's order. Raises SelectionError."""
    known = list(dict.fromkeys(line.group for line in published.lines))
    chosen = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    if chosen == ["all"]:
        return known
    if unknown := [name for name in chosen if name not in known]:
        raise SelectionError(
            f"sets: no {', '.join(unknown)} in {published.source}; it has {', '.join(known)}"
        )
    return [name for name in known if name in chosen]
