"""From a row back to its documents: read from the row itself and `data/documents.parquet`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyarrow import parquet

from training.data.canaries import SOURCE
from training.data.counts import aligned
from training.data.packing import DOCUMENTS
from training.errors import TrainingError
from training.series import CANARIES, TRAIN, read_report

__all__ = ["Piece", "pieces", "trace"]


@dataclass(frozen=True)
class Piece:
    """A stretch of a row that is of one document."""

    first: int
    """Its first token in the row."""
    tokens: int
    """Tokens of it in the row."""
    offset: int
    """The first one's place in the document."""
    document: dict[str, Any]
    """The document's line of `documents.parquet`, by column."""


def trace(out: Path, chunk: int, row: int, *, byte: bool = False) -> str:
    """The documents that a row of a training chunk is made of, as a table.

    With `byte`, `row` is the byte at which the row's line starts, which is how stored results name it.
    """
    line, row = _line(out, chunk, row, byte)
    report = read_report(out)
    if report is None:
        fix = f"first: python -m training prepare --out {out}"
        raise TrainingError(out, expected="a prepared folder", found="no report", fix=fix)
    found = pieces(out, line)
    title = f"chunk {chunk}, row {row}: {len(line['token_ids'])} ids of {line['source']}"
    title += f", stage {found[0].document['stage']}" if found else ""
    notes = _planted(report, chunk, row, line["source"] == SOURCE)
    return "\n".join([title, *notes, *(["", _table(found)] if found else [])])


def pieces(out: Path, line: dict[str, Any]) -> list[Piece]:
    """The documents of a row, in order; none for a canary."""
    if "document" not in line:
        return []
    length, document, offset = len(line["token_ids"]), int(line["document"]), int(line["offset"])
    span = [("document", ">=", document), ("document", "<", document + length)]
    found: list[Piece] = []
    first = 0
    for entry in parquet.read_table(out / DOCUMENTS, filters=span).to_pylist():
        tokens = min(entry["tokens"] - offset, length - first)
        if tokens <= 0:
            break
        found.append(Piece(first, tokens, offset, entry))
        first, offset = first + tokens, 0
    return found


def _line(out: Path, chunk: int, row: int, byte: bool) -> tuple[dict[str, Any], int]:
    """A row of a chunk and its number."""
    path = out / TRAIN.format(index=chunk)
    fix = "choose a chunk and a row that are there"
    if chunk < 0 or not path.is_file():
        raise TrainingError(path, expected="a training chunk", found="none", fix=fix)
    place = 0
    with path.open("rb") as file:
        for number, line in enumerate(file):
            if row == (place if byte else number):
                return json.loads(line), number
            place += len(line)
    expected = "a byte at which a line starts" if byte else f"a row of {number + 1}, counted from 0"
    raise TrainingError(f"{path}, chunk {chunk}", expected=expected, found=str(row), fix=fix)


def _planted(report: dict[str, Any], chunk: int, row: int, canary: bool) -> list[str]:
    """What was planted in this row, if anything was."""
    for entry in report["canaries"] if canary else report["duplicates"]:
        if [chunk, row] in entry["planted"]:
            places = ", ".join(f"({chunk}, {row})" for chunk, row in entry["planted"])
            what = f"a canary, row {entry['row']} of {CANARIES.format(index=0)}" if canary else "a duplicate"
            spaced = f" ({entry['spacing']})" if canary else ""
            return [f"planted: {what}; it stands {entry['repeats']} times{spaced}, at (chunk, row) {places}"]
    return []


def _table(found: list[Piece]) -> str:
    header = ["source", "label", "sha256", "epoch", "document", "ids of the row", "tokens of the document"]
    lines = [header]
    for piece in found:
        entry, last = piece.document, piece.first + piece.tokens - 1
        ids = f"{piece.first} to {last}"
        tokens = f"{piece.offset} to {piece.offset + piece.tokens - 1} of {entry['tokens']}"
        texts = [entry["source"], entry["label"], entry["sha256"]]
        lines.append([*texts, str(entry["epoch"]), str(entry["document"]), ids, tokens])
    return aligned(lines, left=3)
