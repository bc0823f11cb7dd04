"""The second pass of `prepare`: packs to chunks, with what is planted in them, and the report."""

import hashlib
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from training.config import Mix, Recipe
from training.data.bodies import coder_for, open_bodies
from training.data.canaries import SOURCE, Canary, Duplicate, canary_ids, plan, plan_duplicates
from training.data.chunks import Job, Reader, Written, write_chunks
from training.data.counts import counted
from training.data.packing import DOCUMENTS, Packed, Packing, pack
from training.data.rows import record_type, row_line
from training.data.tokenizer import Coder
from training.errors import TrainingError
from training.files import file_sha256
from training.series import CANARIES, HELD_OUT, TOKENIZER, TRAIN

__all__ = ["build"]

Planted = dict[int, dict[int, tuple[str, str]]]
"""chunk -> row of the chunk -> (source, line) that takes the row's place."""


def build(recipe: Recipe, out: Path, scratch: Path, workers: int) -> dict[str, Any]:
    """Every file below a scratch folder, and what the report says of them."""
    mix = recipe.mix
    bodies = open_bodies(mix, scratch)
    coder = coder_for(recipe, out, bodies)
    _check_vocabulary(recipe, coder)
    packing = pack(mix, bodies, coder, scratch)
    kind = record_type(mix.row_tokens, coder.vocabulary)
    canaries = plan(mix)
    duplicates = plan_duplicates(mix, canaries)
    lines = _canary_lines(mix, coder, len(canaries))
    planted = _planted(mix, canaries, lines, duplicates, packing, kind)

    small = {f"{TOKENIZER}/{name}": data for name, data in coder.files.items()}
    small[CANARIES.format(index=0)] = "".join(lines).encode()
    files = {name: _write(scratch / name, data) for name, data in small.items()}
    files[DOCUMENTS] = file_sha256(scratch / DOCUMENTS)
    jobs = _jobs(mix, packing, planted, kind, scratch)
    bar = tqdm(
        write_chunks(jobs.values(), workers), total=len(jobs), desc="writing", unit="chunk", disable=None
    )
    written = dict(zip(jobs, bar, strict=True))
    return {
        "vocabulary": coder.vocabulary,
        "eos_token_id": coder.eos,
        **_counts(mix, packing, written),
        "canaries": [canary.as_json() for canary in canaries],
        "duplicates": [duplicate.as_json() for duplicate in duplicates],
        "files": files | {name: chunk.sha256 for name, chunk in written.items()},
    }


def _check_vocabulary(recipe: Recipe, coder: Coder) -> None:
    if coder.vocabulary > recipe.model.vocabulary:
        expected, found = f"{coder.vocabulary} or more, as the tokenizer has", str(recipe.model.vocabulary)
        raise TrainingError("Model.vocabulary", expected=expected, found=found, fix="mend the recipe")


def _canary_lines(mix: Mix, coder: Coder, canaries: int) -> list[str]:
    ids = canary_ids(mix, canaries, coder.vocabulary, coder.eos)
    return [row_line(row, SOURCE) for row in ids.tolist()]


def _planted(
    mix: Mix,
    canaries: list[Canary],
    lines: list[str],
    duplicates: list[Duplicate],
    packing: Packing,
    kind: np.dtype[np.void],
) -> Planted:
    """Every planting; a duplicate's first place keeps the row it has."""
    planted: Planted = {}
    for canary in canaries:
        for chunk, row in canary.planted:
            planted.setdefault(chunk, {})[row] = SOURCE, lines[canary.row]
    for duplicate in duplicates:
        (chunk, row), *copies = duplicate.planted
        stage = mix.stages.index(mix.stage_of(chunk))
        packed, first = packing.stages[stage], _first_chunks(mix)[stage]
        with Reader(packed.packs, kind) as reader:
            line = reader.line(int(packed.order[(chunk - first) * mix.rows + row]))
        for chunk, row in copies:
            planted.setdefault(chunk, {})[row] = line
    return planted


def _first_chunks(mix: Mix) -> list[int]:
    """Number of each stage's first chunk."""
    return [sum(stage.chunks for stage in mix.stages[:index]) for index in range(len(mix.stages))]


def _jobs(
    mix: Mix, packing: Packing, planted: Planted, kind: np.dtype[np.void], scratch: Path
) -> dict[str, Job]:
    """Every chunk to write, by the name of its file."""
    jobs: dict[str, Job] = {}

    def add(name: str, packed: Packed, chunk: int, planted: dict[int, tuple[str, str]]) -> None:
        rows = packed.order[chunk * mix.rows : (chunk + 1) * mix.rows]
        jobs[name] = Job(scratch / name, packed.packs, kind, rows, planted)

    for stage, first, packed in zip(mix.stages, _first_chunks(mix), packing.stages, strict=True):
        for chunk in range(stage.chunks):
            index = first + chunk
            add(TRAIN.format(index=index), packed, chunk, planted.get(index, {}))
    for chunk in range(mix.held_out_chunks):
        add(HELD_OUT.format(index=chunk), packing.aside, chunk, {})
    for name in jobs:
        (scratch / name).parent.mkdir(parents=True, exist_ok=True)
    return jobs


def _write(path: Path, data: bytes) -> str:
    """Write a file to the disk; its SHA-256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(data).hexdigest()


def _counts(mix: Mix, packing: Packing, written: dict[str, Written]) -> dict[str, Any]:
    """The report's counts: of each source, over all and in each stage."""
    stages: dict[str, Any] = {}
    whole: Counter[str] = Counter()
    for stage, first, packed in zip(mix.stages, _first_chunks(mix), packing.stages, strict=True):
        chunks = range(first, first + stage.chunks)
        rows = sum((written[TRAIN.format(index=chunk)].rows for chunk in chunks), Counter[str]())
        whole += rows
        total = stage.chunks * mix.rows
        stages[stage.name] = {
            "first_chunk": first,
            "chunks": stage.chunks,
            "rows": total,
            "tokens": total * mix.row_tokens,
            "share": total / mix.total_rows,
            "sources": counted(rows, packed.usage, mix.row_tokens),
        }
    sources = counted(whole, packing.usage, mix.row_tokens)
    aside = (written[HELD_OUT.format(index=chunk)].rows for chunk in range(mix.held_out_chunks))
    held_out = sum(aside, Counter[str]())
    for name, counts in sources.items():
        used = packing.aside.usage.get(name)
        counts["held_out_rows"] = held_out[name]
        counts["held_out_documents"] = used.documents if used else 0
    return {"sources": sources, "stages": stages}
