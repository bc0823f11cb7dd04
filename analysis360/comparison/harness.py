"""Results files of lm-evaluation-harness 0.3, as releases of 2023 publish them, read in to stand beside others."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis360.errors import StoreError

TASKS = {
    "ARC": ("arc_challenge", "acc_norm"),
    "HellaSwag": ("hellaswag", "acc_norm"),
    "TruthfulQA": ("truthfulqa_mc", "mc2"),
}
"""By benchmark, its task and the measure that the leaderboard of 2023 took."""
MMLU = "hendrycksTest-"
_NAMES = """
abstract_algebra anatomy astronomy business_ethics clinical_knowledge college_biology college_chemistry
college_computer_science college_mathematics college_medicine college_physics computer_security
conceptual_physics econometrics electrical_engineering elementary_mathematics formal_logic global_facts
high_school_biology high_school_chemistry high_school_computer_science high_school_european_history
high_school_geography high_school_government_and_politics high_school_macroeconomics
high_school_mathematics high_school_microeconomics high_school_physics high_school_psychology
high_school_statistics high_school_us_history high_school_world_history human_aging human_sexuality
international_law jurisprudence logical_fallacies machine_learning management marketing medical_genetics
miscellaneous moral_disputes moral_scenarios nutrition philosophy prehistory professional_accounting
professional_law professional_medicine professional_psychology public_relations security_studies sociology
us_foreign_policy virology world_religions
"""
SUBJECTS = frozenset(_NAMES.split())
FILES = "eval_*.json"
NAMED = 3
"""Missing subjects that are named; of more there is the count."""


class Result(NamedTuple):
    """What a file says of one task."""

    numbers: Mapping[str, Any]
    how: str
    """Shots and limit, where the file tells them."""
    where: str

    def number(self, key: str) -> float:
        """A fraction. Raises StoreError."""
        value = self.numbers.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise StoreError(f"{self.where}: {key}: expected a fraction in [0, 1], found {_short(value)}")
        return float(value)

    def error(self, key: str) -> float:
        """The standard error of a fraction; NaN where there is none. Raises StoreError."""
        name = f"{key}_stderr"
        return np.nan if self.numbers.get(name) in (None, "N/A") else self.number(name)


def read_v03(
    results: Mapping[str, Any] | str | Path,
    model: str | None = None,
    source: str = "published results of lm-eval 0.3",
) -> pd.DataFrame:
    """Scores in a results file of lm-eval 0.3, in its parsed contents, or in a folder's `eval_*.json`.

    `model` is what to call it; as the harness was told, unless given. ARC and HellaSwag are `acc_norm`,
    TruthfulQA is `mc2`, MMLU the plain mean of `acc` over its 57 subjects, NaN with a reason where some are
    missing. Columns: those of `compare`; n is not known. These numbers are for comparison: prompts and
    harness are those of 2023. Raises StoreError naming the file and the key.
    """
    found: dict[str, Result] = {}
    names: dict[str, None] = {}
    for where, raw in _files(results):
        for task, result in _results(raw, where):
            if task in found:
                raise StoreError(f"{where}: {_short(task)} is in {found[task].where} too; keep one of them")
            found[task] = result
        if name := _told(raw, "model_args"):
            names[_model(name)] = None
    if model is None and len(names) != 1:
        what = f"{len(names)} models are named ({', '.join(names)})" if names else "no model is named"
        raise StoreError(f"{_called(results)}: {what}; say which with model=")
    rows = [row for row in (*_single(found), _mmlu(found)) if row]
    if not rows:
        expected = ", ".join(task for task, _ in TASKS.values())
        raise StoreError(f"{_called(results)}: holds none of {expected}, {MMLU}*")
    frame = pd.DataFrame(rows).assign(model=model or next(iter(names)), n=np.nan, source=source)
    return frame[["model", "benchmark", "value", "stderr", "n", "source", "protocol", "reason"]]


def _single(found: Mapping[str, Result]) -> Iterator[dict[str, Any]]:
    for benchmark, (task, measure) in TASKS.items():
        if task in found:
            result = found[task]
            value, stderr = result.number(measure), result.error(measure)
            yield _row(benchmark, value, stderr, f"{result.how}{measure}")


def _mmlu(found: Mapping[str, Result]) -> dict[str, Any] | None:
    """The mean over subjects, each weighing the same whatever its size."""
    subjects = {task.removeprefix(MMLU): found[task] for task in found if task.startswith(MMLU)}
    if not subjects:
        return None
    for name in subjects.keys() - SUBJECTS:
        raise StoreError(
            f"{subjects[name].where}: {_short(MMLU + name)} is none of MMLU's {len(SUBJECTS)} subjects"
        )
    values = np.array([result.number("acc") for result in subjects.values()])
    errors = np.array([result.error("acc") for result in subjects.values()])
    how = ", ".join(dict.fromkeys(result.how for result in subjects.values()))
    protocol = f"{how}acc, mean over subjects"
    if missing := sorted(SUBJECTS - subjects.keys()):
        names = ", ".join(missing[:NAMED]) + (", ..." if len(missing) > NAMED else "")
        reason = f"{len(missing)} of its {len(SUBJECTS)} subjects are not in the file: {names}"
        return _row("MMLU", np.nan, np.nan, protocol, reason)
    return _row("MMLU", values.mean(), math.sqrt(np.square(errors).sum()) / len(errors), protocol)


def _row(benchmark: str, value: float, stderr: float, protocol: str, reason: str = "") -> dict[str, Any]:
    return {"benchmark": benchmark, "value": value, "stderr": stderr, "protocol": protocol, "reason": reason}


def _called(results: Mapping[str, Any] | str | Path) -> str:
    return "results" if isinstance(results, Mapping) else str(results)


def _files(results: Mapping[str, Any] | str | Path) -> Iterator[tuple[str, Any]]:
    """Each file's name and contents."""
    if isinstance(results, Mapping):
        yield "results", results
        return
    path = Path(results)
    paths = sorted(path.glob(FILES)) if path.is_dir() else [path]
    if not paths:
        raise StoreError(f"{path}: expected results of lm-eval 0.3 in files {FILES}, found none")
    for file in paths:
        try:
            yield str(file), json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise StoreError(f"{file}: cannot be read: {error.strerror or error}") from None
        except (ValueError, RecursionError) as error:
            raise StoreError(f"{file}: expected JSON: {error}") from None


def _results(raw: Any, where: str) -> Iterator[tuple[str, Result]]:
    results = raw.get("results") if isinstance(raw, Mapping) else None
    if not isinstance(results, Mapping):
        raise StoreError(f"{where}: expected results of lm-eval 0.3, an object with an object `results`")
    shots, limit = _told(raw, "num_fewshot"), _told(raw, "limit")
    how = (f"{shots}-shot " if shots else "") + (f"first {limit} questions, " if limit else "")
    for task, numbers in results.items():
        if not isinstance(numbers, Mapping):
            raise StoreError(
                f"{where}: results of {_short(task)}: expected an object, found {_short(numbers)}"
            )
        yield str(task), Result(numbers, how, f"{where}: {task}")


def _told(raw: Mapping[str, Any], key: str) -> str:
    """What the harness was told, as text; "" where the file does not say."""
    config = raw.get("config")
    value = config.get(key) if isinstance(config, Mapping) else None
    return "" if value is None else str(value)


def _model(arguments: str) -> str:
    """`pretrained=NAME,revision=BRANCH,...` as NAME@BRANCH."""
    told = dict(re.findall(r"(\w+)=([^,]*)", arguments))
    name = told.get("pretrained", arguments)
    return f"{name}@{told['revision']}" if "revision" in told else name


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
