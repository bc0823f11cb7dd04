"""The folder of a run as a series: which files it holds, what is done, and the manifest that says so."""

import json
from pathlib import Path
from typing import Any

from training.canaries import SOURCE
from training.errors import TrainingError
from training.files import file_sha256, write_aside
from training.recipes import RECIPES, Recipe, as_json
from training.tokenizer import EOS_ID

__all__ = [
    "CANARIES",
    "CHECKPOINT",
    "HELD_OUT",
    "MANIFEST",
    "METRICS",
    "RECIPE",
    "REPORT",
    "TOKENIZER",
    "TRAIN",
    "check_files",
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


def read_recipe(out: Path) -> Recipe | None:
    """The recipe a folder was prepared with, or None; an error if the code's recipe is another by now."""
    if not (out / RECIPE).exists():
        return None
    stored = json.loads((out / RECIPE).read_text("utf-8"))
    fix = "choose another --out, or bring the recipe back"
    if stored["name"] not in RECIPES:
        raise TrainingError(out / RECIPE, expected=" or ".join(RECIPES), found=stored["name"], fix=fix)
    recipe = RECIPES[stored["name"]]()
    for field, (now, then) in _differences(as_json(recipe), stored).items():
        raise TrainingError(
            f"{out / RECIPE}: {field}", expected=f"{now} (as in the code)", found=str(then), fix=fix
        )
    return recipe


def _differences(now: Any, then: Any, field: str = "") -> dict[str, tuple[Any, Any]]:
    if not isinstance(now, dict) or not isinstance(then, dict):
        return {} if now == then else {field: (now, then)}
    found: dict[str, tuple[Any, Any]] = {}
    for key in now | then:
        found |= _differences(now.get(key), then.get(key), f"{field}.{key}".lstrip("."))
    return found


def read_report(out: Path) -> dict[str, Any] | None:
    """What `prepare` says it wrote, or None: it is the last file of it."""
    if not (out / REPORT).exists():
        return None
    report: dict[str, Any] = json.loads((out / REPORT).read_text("utf-8"))
    return report


def check_files(out: Path, report: dict[str, Any]) -> list[str]:
    """Names of files of the report that are missing or are not what was written."""
    files: dict[str, str] = report["files"]
    return [
        name for name, sha in files.items() if not (out / name).exists() or file_sha256(out / name) != sha
    ]


def checkpoints_done(out: Path, recipe: Recipe) -> int:
    """How many checkpoints are there; the names are taken only by complete ones."""
    there = [(out / CHECKPOINT.format(index=index)).exists() for index in range(recipe.data.chunks)]
    done = sum(there)
    if not all(there[:done]):
        missing = CHECKPOINT.format(index=there.index(False))
        found = f"{done}, none of them {missing}"
        raise TrainingError(
            out / missing, expected="checkpoints without a gap", found=found, fix="put it back"
        )
    return done


def manifest(recipe: Recipe, report: dict[str, Any], checkpoints: int) -> str:
    """The series in TOML. Values are numbers, strings and lists of them, which JSON writes as TOML does."""
    chunks = {"rows": recipe.data.rows, "row_tokens": recipe.data.row_tokens}
    tables: dict[str, dict[str, Any]] = {
        "": {"manifest": 1, "name": recipe.name, "metrics": METRICS, "tokenizer": TOKENIZER},
        "[model]": {"compute_dtype": "float32", "eos_token_id": EOS_ID},
        "[checkpoints]": {"path": CHECKPOINT, "first": 0, "count": checkpoints},
        "[data]": {"format": "jsonl", "path": TRAIN, "first": 0, "count": recipe.data.chunks} | chunks,
        "[held_out]": {"path": HELD_OUT, "first": 0, "count": recipe.data.held_out_chunks},
        "[canaries]": {"path": CANARIES, "source": SOURCE, "ordinary_ids": recipe.data.vocabulary - 1},
    }
    lines: list[str] = []
    for name, table in [*tables.items(), *(("[[canaries.rows]]", canary) for canary in report["canaries"])]:
        lines += ["", name, *_assignments(table)]
    exposure = {
        "order": list(range(checkpoints)),
        "done": list(range(1, checkpoints + 1)),
        "tokens_per_chunk": recipe.chunk_tokens,
    }
    lines += ["", "[exposure]", *_assignments(exposure)]
    return "\n".join(lines).lstrip() + "\n"


def _assignments(table: dict[str, Any]) -> list[str]:
    return [f"{key} = {json.dumps(value)}" for key, value in table.items()]


def write_manifest(out: Path, recipe: Recipe, report: dict[str, Any], checkpoints: int) -> None:
    """Bring the manifest up to the checkpoints that are there."""
    text = manifest(recipe, report, checkpoints).encode()
    path = out / MANIFEST
    if not path.exists() or path.read_bytes() != text:
        write_aside(path, text)
