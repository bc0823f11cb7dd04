"""Text to rows: `prepare` writes everything a run reads, the same bytes each time.

Two passes over the text. The first tokenises the documents of each take in order and leaves its rows in a
scratch file; the second gathers every chunk's rows through the stage's permutation. What is in memory does
not grow with the text but by an index: some 40 bytes a document, and eight bytes a row of the stage at hand.
"""

import json
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import tokenizers

from training.config import Recipe
from training.data.building import build
from training.data.counts import mix_table
from training.errors import TrainingError
from training.files import only_one, write_aside
from training.records import as_json
from training.series import RECIPE, REPORT, check_files, check_recipe, read_report

__all__ = ["prepare"]

_SCRATCH = ".prepare"


def prepare(recipe: Recipe, out: Path, workers: int = 1) -> str:
    """Write the data of a recipe below `out`, with so many processes; returns lines to print.

    What is there and complete stays. Nothing in the folder changes before all of it is known, so that a mix
    that asks for too much can be mended; the report is written last.
    """
    with only_one(out):
        check_recipe(out, recipe)
        report = read_report(out)
        if report and not check_files(out, report):
            return f"{out}: prepared already ({recipe.name})"
        with _empty_folder(out / _SCRATCH) as scratch, _threads(workers):
            now = {"name": recipe.name, "made_with": _made_with()}
            now |= build(recipe, out, scratch, workers)
            _check_same(out, report, now)
            write_aside(out / RECIPE, (json.dumps(as_json(recipe), indent=2) + "\n").encode())
            for name in now["files"]:
                (out / name).parent.mkdir(parents=True, exist_ok=True)
                (scratch / name).replace(out / name)
        write_aside(out / REPORT, (json.dumps(now, indent=1) + "\n").encode())
    mix = recipe.mix
    line = f"{out}: prepared {mix.name}: {mix.chunks:,} chunks of {mix.rows:,} rows of {mix.row_tokens:,} ids"
    return f"{line}\n\n{mix_table(now)}"


@contextmanager
def _empty_folder(folder: Path) -> Iterator[Path]:
    """A folder for the time of the `with`; what a killed command left in it goes."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _threads(workers: int) -> Iterator[None]:
    """Threads of the tokenizers library, which are counted when it first uses any."""
    wanted = {"TOKENIZERS_PARALLELISM": str(workers > 1).lower(), "RAYON_NUM_THREADS": str(workers)}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _made_with() -> dict[str, str]:
    versions = {"numpy": np, "pyarrow": pyarrow, "tokenizers": tokenizers}
    return {"python": platform.python_version()} | {name: it.__version__ for name, it in versions.items()}


def _check_same(out: Path, report: dict[str, Any] | None, now: dict[str, Any]) -> None:
    """Files that were lost may be made again, but only as they were: a run may have been trained on them."""
    if report is None or report["files"] == now["files"]:
        return
    made_with = [
        ", ".join(f"{name} {is_}" for name, is_ in each["made_with"].items()) for each in (report, now)
    ]
    fix = "prepare into another folder"
    raise TrainingError(
        out / REPORT, expected=f"what {made_with[1]} makes", found=f"{made_with[0]}'s", fix=fix
    )
