"""Models beside one another and beside the paper's: each is asked what is missing, then a table is made of them all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis360.comparison import Comparison, compare
from analysis360.errors import SelectionError
from analysis360.evaluations import EvaluationResult
from analysis360.leaderboard import leaderboard
from analysis360.series import open_series

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
    scores = []
    for model in models:
        name, ckpts = split(model)
        result = leaderboard(open_series(name, hub=hub), ckpts, **options)
        scores.append(scores_of(result))
    return compare(pd.concat(scores, ignore_index=True), layout, paper=paper)


def split(model: str) -> tuple[str, str]:
    """`SERIES:CKPTS` -> (series, selector); without one the last checkpoint is meant."""
    name, colon, ckpts = model.partition(":")
    if not colon or Path(model).exists():
        return model, "-1"
    if not name or not ckpts:
        raise SelectionError(f"model {model!r}: expected SERIES or SERIES:CKPTS, such as amber:ckpt_355")
    return name, ckpts


def scores_of(result: EvaluationResult) -> pd.DataFrame:
    """A row a (model, benchmark) of a result, as `comparison.compare` takes them."""
    how = result.task.how
    versions = sorted({str(part.get("lm-eval")) for part in result.rows.provenance})
    source = f"measured here: {how.engine} {how.dtype}, lm-eval {', '.join(versions)}"
    shots = {one.name: one.shots for one in result.benchmarks}
    rows = []
    for line in result.summary().itertuples():
        series, ckpt = str(line.series), str(line.ckpt)
        model = ckpt if ckpt == series else f"{series} {ckpt}"
        asked = shots.get(str(line.benchmark))
        protocol = f"{asked}-shot {line.metric}" if asked is not None else str(line.metric)
        rows.append((model, line.benchmark, line.value, line.stderr, line.n, source, protocol, line.missing))
    return pd.DataFrame(rows, columns=list(SCORES))
