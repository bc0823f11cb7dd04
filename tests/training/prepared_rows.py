"""What the tests of prepared data share: small recipes, rows read back, real documents in files."""

import json
import sysconfig
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from training.config import Loop, Mix, Model, Rate, Recipe, Source, Stage, Take
from training.recipes import micro


def recipe_of(mix: Mix) -> Recipe:
    """A recipe around a mix; its model is as small as can be."""
    model = Model(hidden=8, layers=1, heads=1, intermediate=8, vocabulary=4096)
    return Recipe(mix, model, Loop(batch=8, rates=(Rate(1e-3, 0.0, 0),)))


def mix_of(*takes: Take, chunks: int = 2, rows: int = 16, **changes: Any) -> Mix:
    """A mix of one stage; its sources are the built-in ones, unless given."""
    sources = changes.pop("sources", micro().mix.sources)
    stages = changes.pop("stages", (Stage("all", chunks, takes),))
    settings: dict[str, Any] = {"seed": 7, "vocabulary": 320, "row_tokens": 65, "held_out_chunks": 1}
    return Mix("mix", sources=sources, stages=stages, rows=rows, **settings | changes)


def read_rows(out: Path, pattern: str = "data/train/*") -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(out.glob(pattern)) for line in path.read_text().splitlines()]


def read_documents(out: Path) -> list[dict[str, Any]]:
    documents: list[dict[str, Any]] = pq.read_table(out / "data/documents.parquet").to_pylist()
    return documents


def files_of(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def real_texts(count: int, longest: int = 3000) -> list[str]:
    """The beginnings of so many modules of the standard library, all different."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    files = [file for file in sorted(folder.glob("*.py")) if file.stat().st_size > 2000]
    texts = list(dict.fromkeys(file.read_text("utf-8")[:longest] for file in files))
    assert len(texts) >= count
    return texts[:count]


def write_sources(folder: Path) -> tuple[Source, ...]:
    """Real text as files of each kind, in two files where a file holds many; the sources that read them."""
    texts = real_texts(90)
    for name, some in (("b", texts[:20]), ("a", texts[20:30])):
        lines = [json.dumps({"id": index, "content": text}) for index, text in enumerate(some)]
        (folder / f"{name}.jsonl").write_text("\n\n".join(lines) + "\n")
    for index, text in enumerate(texts[30:60]):
        (folder / "notes").mkdir(exist_ok=True)
        (folder / f"notes/{index:02d}.txt").write_bytes(text.encode())
    table = pa.table({"id": range(30), "text": texts[60:]})
    pq.write_table(table, folder / "part.parquet", row_group_size=7)
    return (
        Source("lines", f"{folder}/*.jsonl", field="content"),
        Source("notes", f"{folder}/notes/**/*.txt"),
        Source("table", f"{folder}/*.parquet"),
    )


def of_files(folder: Path, **changes: Any) -> Mix:
    """A mix of files of each kind."""
    takes = (Take("lines", 2.0), Take("notes", 1.0), Take("table", 1.0))
    return replace(mix_of(*takes, sources=write_sources(folder), chunks=3, rows=20), **changes)
