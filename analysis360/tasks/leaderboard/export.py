"""lm-eval's own result file, for the tools that read one: its figures, made by lm-eval of what is stored."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis360.errors import StoreError
from analysis360.tasks.leaderboard.questions import QuestionSet, quietly

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
    with in_one_process():
        found: dict[str, Any] = _process_results(gathered, groups, RESAMPLES)._to_eval_results()
    return found


@contextlib.contextmanager
def in_one_process() -> Iterator[None]:
    """lm-eval's bootstrap, quietly and without its pool: what is forked beside torch's threads may never end."""
    before = os.environ.get("DISABLE_MULTIPROC")
    os.environ["DISABLE_MULTIPROC"] = "1"
    try:
        with quietly():
            yield
    finally:
        if before is None:
            del os.environ["DISABLE_MULTIPROC"]
        else:
            os.environ["DISABLE_MULTIPROC"] = before


def write_results(path: Path, results: Mapping[str, Any]) -> None:
    """Write aside and rename: a file that exists is complete. Raises StoreError."""
    from lm_eval.utils import handle_non_serializable

    text = json.dumps(results, indent=2, default=handle_non_serializable, ensure_ascii=False)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(text + "\n")
        aside.replace(path)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}") from None
