"""lm-eval's own result file, for the tools that read one: its figures, made by lm-eval of what is stored."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis360.tasks.leaderboard.questions import QuestionSet

RESAMPLES = 100
"""Of lm-eval's bootstrap, which only figures that are no means need."""


def results_of(
    sets: Sequence[QuestionSet], values: Mapping[str, Mapping[str, Sequence[Any]]], groups: dict[str, Any]
) -> dict[str, Any]:
    """lm-eval's results of the values of each question, by set and by metric with its filter."""
    from lm_eval.evaluator_utils import _process_results

    gathered = {}
    for one in sets:
        raw = {tuple(metric.rsplit(",", 1)): list(found) for metric, found in values[one.name].items()}
        gathered[one.task.task_name] = {"task": one.task, "raw_metrics": raw, "logged_samples": []}
    found: dict[str, Any] = _process_results(gathered, groups, RESAMPLES)._to_eval_results()
    return found


def write_results(path: Path, results: Mapping[str, Any]) -> None:
    """Write aside and rename: a file that exists is complete."""
    from lm_eval.utils import handle_non_serializable

    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    aside.write_text(
        json.dumps(results, indent=2, default=handle_non_serializable, ensure_ascii=False) + "\n"
    )
    aside.replace(path)
