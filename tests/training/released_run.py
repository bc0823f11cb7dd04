"""A run as the trainer leaves it, made on the spot: two stages, an abandoned chunk, plantings, real weights."""

from __future__ import annotations

import hashlib
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from small_series import save_llama

from training.config import Canaries, Loop, Mix, Model, Rate, Recipe, Source, Stage, Take
from training.data.tokenizer import tokenizer_files, train_tokenizer
from training.records import as_json
from training.series import (
    CANARIES,
    CHECKPOINT,
    HELD_OUT,
    METRICS,
    RECIPE,
    REPORT,
    TOKENIZER,
    TRAIN,
    write_manifest,
)

VOCABULARY, ROWS, ROW_TOKENS = 300, 12, 33
SOURCES = ("books", "code | web")
COUNTS = ("rows", "tokens", "documents", "held_out_rows", "held_out_documents")
ORDER = [0, 2, 3, 4, 0]
"""Chunk 1 was abandoned, so the first one comes once more."""
ABANDONED = {"event": "abandoned", "chunk": 1, "position": 1, "step": 4, "tokens": 512, "loss": None}


def recipe() -> Recipe:
    """Two stages of three and two chunks, each with a rate of its own."""
    takes = (Take(SOURCES[0], 0.75), Take(SOURCES[1], 0.25)), (Take(SOURCES[0], 0.5), Take(SOURCES[1], 0.5))
    canaries = Canaries(levels=((2, 1),), one_chunk=(3,), never=1, duplicates=((3, 1),))
    return Recipe(
        mix=Mix(
            name="released",
            seed=3,
            sources=tuple(Source(name) for name in SOURCES),
            stages=(Stage("first", 3, takes[0]), Stage("second", 2, takes[1])),
            rows=ROWS,
            row_tokens=ROW_TOKENS,
            vocabulary=VOCABULARY,
            canaries=canaries,
        ),
        model=Model(hidden=32, layers=2, heads=2, intermediate=64, vocabulary=VOCABULARY, positions=128),
        loop=Loop(batch=4, rates=(Rate(3e-3, 3e-5, 2, "linear", steps=30), Rate(1e-3, 1e-4, 1))),
    )


def released_run(out: Path) -> Path:
    """Fill a folder; nothing in it is left to the code under test but the manifest."""
    made, rng = recipe(), np.random.default_rng(11)
    (out / "data").mkdir(parents=True)
    write(out / RECIPE, json.dumps(as_json(made), indent=2) + "\n")
    texts = [f"It was the {i}th of times; there were {i * i} of them.\n" for i in range(200)]
    for name, body in tokenizer_files(train_tokenizer(texts, VOCABULARY), 128).items():
        write(out / TOKENIZER / name, body.decode())
    counts = {name: dict.fromkeys(COUNTS, 0) for name in (*SOURCES, "canary")}
    stages: dict[str, Any] = {name: {"sources": {}} for name in ("first", "second")}
    for chunk in range(5):
        names = ["books"] * 7 + ["code | web"] * 4 + ["canary" if chunk in (0, 3) else "books"]
        write_rows(out / TRAIN.format(index=chunk), rng.permutation(names).tolist(), rng)
        for name in names:
            of = stages["first" if chunk < 3 else "second"]["sources"].setdefault(
                name, {"rows": 0, "tokens": 0}
            )
            for one in (counts[name], of):
                one["rows"] += 1
                one["tokens"] += ROW_TOKENS
    for chunk in range(2):
        write_rows(out / HELD_OUT.format(index=chunk), ["books"] * 8 + ["code | web"] * 4, rng)
        counts["books"]["held_out_rows"] += 8
        counts["code | web"]["held_out_rows"] += 4
    counts["books"] |= {"documents": 1234, "held_out_documents": 17, "epochs": 1.25}
    counts["code | web"] |= {"documents": 56, "held_out_documents": 5}
    write_rows(out / CANARIES.format(index=0), ["canary"] * 3, rng)
    pyarrow.parquet.write_table(
        pyarrow.table({"source": ["books"], "tokens": [9]}), out / "data/documents.parquet"
    )
    report = report_of(out, counts, stages)
    write(out / REPORT, json.dumps(report, indent=1) + "\n")
    write_metrics(out / METRICS, made)
    for index in range(5):
        folder = out / CHECKPOINT.format(index=index)
        save_llama(folder, index, vocab_size=VOCABULARY, tie_word_embeddings=False)
        for file in (out / TOKENIZER).iterdir():
            write(folder / file.name, file.read_text())
    write_manifest(out, made, report, ORDER)
    return out


def report_of(out: Path, counts: dict[str, Any], stages: dict[str, Any]) -> dict[str, Any]:
    """The report of the data as `prepare` writes it."""
    canaries = [
        {"row": 0, "repeats": 2, "spacing": "even", "planted": [[0, 1], [3, 1]]},
        {"row": 1, "repeats": 2, "spacing": "chunk", "planted": [[3, 2], [3, 5]]},
        {"row": 2, "repeats": 0, "spacing": "never", "planted": []},
    ]
    files = [file for place in ("data", TOKENIZER) for file in (out / place).rglob("*") if file.is_file()]
    return {
        "name": "released",
        "made_with": {"python": platform.python_version(), "tokenizers": "0.22.9"},
        "vocabulary": VOCABULARY,
        "eos_token_id": 0,
        "sources": counts,
        "stages": stages,
        "canaries": canaries,
        "duplicates": [{"row": [0, 7], "repeats": 3, "planted": [[0, 7], [2, 7], [4, 7]]}],
        "files": {str(f.relative_to(out)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files},
    }


def write_metrics(path: Path, made: Recipe) -> None:
    """Three steps a chunk in the order of training; what the abandoned chunk left is an event."""
    lines: list[dict[str, Any]] = []
    for position, chunk in enumerate(ORDER):
        if position == 1:
            lines.append({**ABANDONED, "gradient_norm": 2.5, "reason": "the loss is not finite"})
        for step in range(3 * position, 3 * position + 3):
            where = {
                "step": step,
                "chunk": chunk,
                "stage": made.mix.stage_of(chunk).name,
                "position": position,
            }
            found = {
                "tokens": 128 * (step + 1),
                "loss": 6.0 - step / 7,
                "learning_rate": 1e-3,
                "gradient_norm": 1.5,
            }
            machine = {"seconds": 0.25, "tokens_per_second": 512.0, "mfu": None, "memory_mb": 321.5}
            lines.append({**where, **found, **machine, "spike": None if step < 9 else step / 8})
    write(path, "".join(json.dumps(line) + "\n" for line in lines))


def write_rows(path: Path, sources: list[str], rng: np.random.Generator) -> None:
    ids = rng.integers(0, VOCABULARY, (len(sources), ROW_TOKENS)).tolist()
    rows = zip(ids, sources, strict=True)
    write(path, "".join(json.dumps({"token_ids": row, "source": source}) + "\n" for row, source in rows))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
