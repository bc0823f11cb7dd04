"""From an engine's answers to a row a question: what lm-eval makes of them, and the answers themselves."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from analysis360.tasks.leaderboard.questions import QuestionSet

SCHEMA = pa.schema(
    [
        ("position", pa.int32()),
        ("metric", pa.list_(pa.string())),
        ("value", pa.list_(pa.float64())),
        ("items", pa.list_(pa.string())),
        ("aggregation", pa.list_(pa.string())),
        ("logprob", pa.list_(pa.float64())),
        ("greedy", pa.list_(pa.bool_())),
        ("text", pa.list_(pa.string())),
    ]
)
"""A row a question. metric: lm-eval's name and filter, `acc,none`; value: of the question, NaN where it is no number,
and then `items` holds it as JSON, or where an answer of the model is not finite; aggregation: lm-eval's name of what
makes one figure of all values. logprob and greedy: of each choice (or of the whole text), text: what was generated;
whichever was asked for."""


def outcome_table(questions: QuestionSet, start: int, stop: int, answers: Sequence[Any]) -> pa.Table:
    """The rows of questions [start, stop), whose requests had these answers, in order."""
    requests = questions.requests(start, stop)
    for request in requests:
        request.resps, request.filtered_resps = [], {}
    given = iter(answers)
    for request in requests:
        request.resps = [next(given) for _ in range(request.repeats or 1)]
    task = questions.task
    task._instances = requests
    task.apply_filters()
    names = _aggregations(task)
    rows = [_row(task, position, questions.asked[position], names) for position in range(start, stop)]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _row(task: Any, position: int, requests: Sequence[Any], names: dict[str, str]) -> dict[str, Any]:
    metrics: dict[str, Any] = {}
    for key in requests[0].filtered_resps:
        found = task.process_results(requests[0].doc, [one.filtered_resps[key] for one in requests])
        metrics |= {f"{metric},{key}": value for metric, value in found.items()}
    flat = [answer for one in requests for answer in one.resps]
    kind = requests[0].request_type
    logprobs = _logprobs(kind, flat)
    if not all(map(math.isfinite, logprobs)):  # of which lm-eval would make an answer all the same
        metrics = dict.fromkeys(metrics, math.nan)
    numbers = {metric: _number(value) for metric, value in metrics.items()}
    return {
        "position": position,
        "metric": list(metrics),
        "value": [math.nan if value is None else value for value in numbers.values()],
        "items": [
            None if numbers[m] is not None else json.dumps(value, default=_plain)
            for m, value in metrics.items()
        ],
        "aggregation": [names.get(metric.rpartition(",")[0], "mean") for metric in metrics],
        "logprob": logprobs,
        "greedy": [bool(one[1]) for one in flat] if kind == "loglikelihood" else [],
        "text": [str(one) for one in flat] if kind == "generate_until" else [],
    }


def _logprobs(kind: str, answers: Sequence[Any]) -> list[float]:
    if kind == "loglikelihood":
        return [float(one[0]) for one in answers]
    return [float(one) for one in answers] if kind == "loglikelihood_rolling" else []


def _number(value: Any) -> float | None:
    """The value where it is a number; text that reads as one is none."""
    return float(value) if isinstance(value, int | float | np.number | np.bool_) else None


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _aggregations(task: Any) -> dict[str, str]:
    """lm-eval's name of each metric's aggregation; `own` for a task's own, which lm-eval's file alone tells."""
    from lm_eval.api.registry import AGGREGATION_REGISTRY

    names = {function: name for name, function in AGGREGATION_REGISTRY.items()}
    return {metric: names.get(function, "own") for metric, function in task.aggregation().items()}
