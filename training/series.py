"""The folder of a run as a series: which files it holds, what is done, and the manifest that says so."""

import json
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from training.config import Recipe
from training.data.canaries import SOURCE
from training.errors import TrainingError
from training.files import file_sha256, write_aside
from training.records import as_json, differences, from_json

__all__ = [
    "CANARIES",
    "CHECKPOINT",
    "HELD_OUT",
    "MANIFEST",
    "METRICS",
    "PARENT",
    "RECIPE",
    "REPORT",
    "TOKENIZER",
    "TRAIN",
    "check_files",
    "check_recipe",
    "checkpoints_done",
    "manifest",
    "read_recipe",
    "read_report",
    "write_manifest",
]

RECIPE = "recipe.json"
REPORT = "data/report.json"
TOKENIZER = "tokenizer"
TRAIN = "data/train/train_{index:03d}.jsonl"
HELD_OUT = "data/held-out/held-out_{index:03d}.jsonl"
CANARIES = "data/canaries/canaries_{index:03d}.jsonl"
CHECKPOINT = "checkpoints/ckpt_{index:03d}"
METRICS = "metrics.jsonl"
MANIFEST = "series.toml"
PARENT = "parent"


def read_recipe(out: Path) -> Recipe | None:
    """The recipe a folder was prepared with, or None."""
    path = out / RECIPE
    if not path.exists():
        return None
    try:
        return from_json(Recipe, json.loads(path.read_text("utf-8")))
    except ValueError as error:
        fix = "choose another --out, or train it with the version that prepared it"
        raise TrainingError(path, expected="a recipe of this version", found=str(error), fix=fix) from None


def check_recipe(out: Path, recipe: Recipe) -> None:
    """Refuse a folder that was prepared with another recipe, naming the first field that differs."""
    stored = read_recipe(out)
    found = {} if stored is None else differences(as_json(recipe), as_json(stored))
    for field, (now, then) in found.items():
        where, fix = f"{out / RECIPE}: {field}", "choose another --out"
        raise TrainingError(where, expected=f"{now}, as asked", found=str(then), fix=fix)


def read_report(out: Path) -> dict[str, Any] | None:
    """What `prepare` says it wrote, or None: it is the last file of it."""
    if not (out / REPORT).exists():
        return None
    report: dict[str, Any] = json.loads((out / REPORT).read_text("utf-8"))
    return report


def check_files(
    out: Path, report: dict[str, Any], hashed: Callable[[str], bool] = lambda name: True
) -> list[str]:
    """Names of files of the report that are missing or, where they are `hashed`, not what was written."""
    files: dict[str, str] = report["files"]
    return [
        name
        for name, sha in files.items()
        if not (out / name).exists() or (hashed(name) and file_sha256(out / name) != sha)
    ]


def checkpoints_done(out: Path) -> int:
    """How many checkpoints the manifest counts; it is written after them."""
    path = out / MANIFEST
    return int(tomllib.loads(path.read_text("utf-8"))["checkpoints"]["count"]) if path.exists() else 0


def manifest(recipe: Recipe, report: dict[str, Any], order: Sequence[int]) -> str:
    """The series in TOML. Values are numbers, strings and lists of them, which JSON writes as TOML does.

    `order` holds the chunk trained on before each checkpoint: a chunk that was abandoned is not in it, and
    one that completed the schedule is in it twice.
    """
    mix, parent = recipe.mix, recipe.parent
    chunks = {"rows": mix.rows, "row_tokens": mix.row_tokens}
    top: dict[str, Any] = {"manifest": 1, "name": recipe.name, "metrics": METRICS, "tokenizer": TOKENIZER}
    tables: dict[str, dict[str, Any]] = {
        "": top | ({"base": f"{parent.series}/{parent.checkpoint}"} if parent else {}),
        "[model]": {
            "compute_dtype": recipe.loop.compute_dtype,
            "eos_token_id": report["eos_token_id"],
            "add_bos": False,
        },
        "[checkpoints]": {"path": CHECKPOINT, "first": 0, "count": len(order)},
        "[data]": {"format": "jsonl", "path": TRAIN, "first": 0, "count": mix.chunks} | chunks,
    }
    if mix.held_out_chunks:
        tables["[held_out]"] = {"path": HELD_OUT, "first": 0, "count": mix.held_out_chunks}
    if report["canaries"]:
        ordinary = report["vocabulary"] - 1
        tables["[canaries]"] = {"path": CANARIES, "source": SOURCE, "ordinary_ids": ordinary}
    lines: list[str] = []
    for name, table in [*tables.items(), *(("[[canaries.rows]]", canary) for canary in report["canaries"])]:
        lines += ["", name, *_assignments(table)]
    exposure = {
        "order": list(order),
        "done": list(range(1, len(order) + 1)),
        "tokens_per_chunk": recipe.chunk_targets,
    }
    lines += ["", "[exposure]", *_assignments(exposure)]
    return "\n".join(lines).lstrip() + "\n"


def _assignments(table: dict[str, Any]) -> list[str]:
    return [f"{key} = {json.dumps(value)}" for key, value in table.items()]


def write_manifest(out: Path, recipe: Recipe, report: dict[str, Any], order: Sequence[int]) -> None:
    """Bring the manifest up to the checkpoints that are there."""
    text = manifest(recipe, report, order).encode()
    path = out / MANIFEST
    if not path.exists() or path.read_bytes() != text:
        write_aside(path, text)
