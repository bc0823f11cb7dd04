"""Models beside one another and beside the paper's: each is asked what is missing, then a table is made of them all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis360.code_results import stored_summary
from analysis360.comparison import Comparison, compare
from analysis360.errors import SelectionError
from analysis360.evaluating import leaderboard
from analysis360.evaluations import EvaluationResult
from analysis360.series import open_series
from analysis360.store import Store

SCORES = ("model", "benchmark", "value", "stderr", "n", "source", "protocol", "reason")


def compare_models(
    models: Sequence[str],
    *,
    layout: str = "table4",
    paper: str = "first",
    hub: Any = None,
    **options: Any,
) -> Comparison:
    """Tables 4 and 5 of the paper with these models in them.

    A model is `SERIES` (its last checkpoint) or `SERIES:CKPTS`, a series being whatever `open_series` opens, a folder
    with one model included. `options` are those of `leaderboard`, `layout` and `paper` those of
    `comparison.compare`. Raises Analysis360Error.
    """
    if not models:
        raise SelectionError("models: expected SERIES or SERIES:CKPTS, found nothing")
    if twice := sorted({model for model in models if list(models).count(model) > 1}):
        raise SelectionError(f"models: {', '.join(twice)} is named twice")
    scores = []
    for model in models:
        name, ckpts = split(model)
        series = open_series(name, hub=hub)
        result = leaderboard(series, ckpts, **options)
        scores += [scores_of(result), programs_of(result, Path(options.get("out", "results")))]
    return compare(pd.concat(scores, ignore_index=True), layout, paper=paper)


def split(model: str) -> tuple[str, str]:
    """`SERIES:CKPTS` -> (series, selector); without one the last checkpoint is meant."""
    name, colon, ckpts = model.partition(":")
    if not colon or Path(model).exists():
        return model, "-1"
    if not name or not ckpts:
        raise SelectionError(f"model {model!r}: expected SERIES or SERIES:CKPTS, such as amber:ckpt_355")
    return name, ckpts


def programs_of(result: EvaluationResult, out: Path) -> pd.DataFrame:
    """The same of the programs that are stored; they are written by `analysis360 code`."""
    how, store = result.task.how, Store(out, result.series.name)
    source = _source(result)
    summary = stored_summary(result.series, result.checkpoints, store, how.engine, how.dtype)
    return pd.DataFrame(
        [
            (_model(line), line.benchmark, line.value, line.stderr, line.n, source, "pass@1", "")
            for line in summary.itertuples()
        ],
        columns=list(SCORES),
    )


def _model(line: Any) -> str:
    series, ckpt = str(line.series), str(line.ckpt)
    return ckpt if ckpt == series else f"{series} {ckpt}"


def _source(result: EvaluationResult) -> str:
    versions = sorted({str(part.get("lm-eval")) for part in result.rows.provenance})
    how = result.task.how
    return f"measured here: {how.engine} {how.dtype}, lm-eval {', '.join(versions)}"


def scores_of(result: EvaluationResult) -> pd.DataFrame:
    """A row a (model, benchmark) of a result, as `comparison.compare` takes them."""
    source = _source(result)
    shots = {one.name: one.shots for one in result.benchmarks}
    rows = []
    for line in result.summary().itertuples():
        asked = shots.get(str(line.benchmark))
        protocol = f"{asked}-shot {line.metric}" if asked is not None else str(line.metric)
        rows.append(
            (
                _model(line),
                line.benchmark,
                line.value,
                line.stderr,
                line.n,
                source,
                protocol,
                line.missing,
            )
        )
    return pd.DataFrame(rows, columns=list(SCORES))
