"""Documents to rows: tokenised in order, joined, and cut into records on disk, of which little is in memory."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow
from pyarrow import parquet

from training.data.rows import Numbers, Stream, random, record_type
from training.data.sources import Documents, checked_sha256
from training.data.tokenizer import Coder
from training.errors import TrainingError

__all__ = ["Catalogue", "Draw", "fill", "in_order"]

_BLOCK = (64, 1 << 17)
"""Documents and characters tokenised at a time; one document at least."""
_LINES, _GROUP = 1 << 9, 1 << 11
"""Lines of the catalogue that are kept as Python's objects, and those of a row group."""
_SCHEMA = pyarrow.schema(
    [
        pyarrow.field("document", pyarrow.int64(), nullable=False),
        pyarrow.field("stage", pyarrow.string()),
        pyarrow.field("source", pyarrow.string(), nullable=False),
        pyarrow.field("label", pyarrow.string(), nullable=False),
        pyarrow.field("sha256", pyarrow.string(), nullable=False),
        pyarrow.field("tokens", pyarrow.int64(), nullable=False),
        pyarrow.field("start", pyarrow.int64(), nullable=False),
        pyarrow.field("epoch", pyarrow.int32(), nullable=False),
        pyarrow.field("held_out", pyarrow.bool_(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Draw:
    """What a pack is to be made of."""

    source: str
    """Name of the source."""
    stage: str | None
    """Name of the stage, None for held-out text."""
    order: Numbers
    """Numbers of the documents, in order."""
    rows: int
    """Rows wanted."""
    epochs: int = 1
    """How often the documents may be used."""
    key: tuple[int, ...] = ()
    """Seed, stage and take: key of the order in later epochs."""

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.source}, held out" if self.stage is None else f"stage {self.stage}: {self.source}"


class Catalogue:
    """`documents.parquet`, written as documents are used: a line each time a document is."""

    def __init__(self, path: Path) -> None:
        self.documents = 0
        """Lines so far: the number of the next one."""
        self._lines: list[tuple[Any, ...]] = []
        self._batches: list[pyarrow.RecordBatch] = []
        self._sink = path.open("wb")
        self._file = parquet.ParquetWriter(self._sink, _SCHEMA, compression="zstd")

    def add(self, *line: object) -> None:
        """A line: all columns but the number, in the schema's order."""
        self._lines.append((self.documents, *line))
        self.documents += 1
        if len(self._lines) == _LINES:
            self._gather()
        if self.documents % _GROUP == 0:
            self._flush()

    def close(self) -> None:
        """Write what is left, to the disk."""
        with self._sink:
            self._flush()
            self._file.close()
            self._sink.flush()
            os.fsync(self._sink.fileno())

    def _gather(self) -> None:
        columns = zip(*self._lines, strict=True)
        arrays = [pyarrow.array(list(it), field.type) for it, field in zip(columns, _SCHEMA, strict=False)]
        if arrays:
            self._batches.append(pyarrow.RecordBatch.from_arrays(arrays, schema=_SCHEMA))
        self._lines = []

    def _flush(self) -> None:
        self._gather()
        if self._batches:
            self._file.write_table(pyarrow.Table.from_batches(self._batches))
        self._batches = []


def in_order(draw: Draw) -> Iterator[tuple[int, int]]:
    """(epoch, document) as they are used: each epoch after the first in an order of its own."""
    seed, *key = draw.key or (0,)
    for epoch in range(draw.epochs if len(draw.order) else 0):
        order = draw.order
        if epoch:
            order = order[random(seed, Stream.EPOCHS, *key, epoch).permutation(len(order))]
        for document in order:
            yield epoch, int(document)


def fill(
    path: Path, draw: Draw, documents: Documents, coder: Coder, row_tokens: int, catalogue: Catalogue
) -> Iterator[tuple[int, int]]:
    """Write the rows wanted to a file of records; yields (document, its ids) for each one used.

    The last document is cut where the rows end. Every use of a document is a line of the catalogue.
    """
    kind = record_type(row_tokens, coder.vocabulary)
    wanted, found, used = draw.rows * row_tokens, 0, 0
    with path.open("wb") as file:
        cutter = _Cutter(file, kind, catalogue.documents, draw.rows)
        for block in _blocks(draw, documents):
            if found >= wanted:
                break
            labels = [documents.label(document) for _, document, _ in block]
            encoded = coder.encode([text for _, _, text in block], labels)
            for (epoch, document, text), label, ids in zip(block, labels, encoded, strict=True):
                if found >= wanted:
                    break
                sha = checked_sha256(documents, document, text)
                aside = draw.stage is None
                catalogue.add(draw.stage, draw.source, label, sha, len(ids), found, epoch, aside)
                cutter.add(ids)
                found, used = found + len(ids), used + 1
                yield document, len(ids)
            cutter.flush()
    if found < wanted:
        fix = "ask for less of it, allow more epochs, or hold out another share (or held_out_chunks = 0)"
        expected, have = f"{wanted} tokens", f"{found} in {used} documents"
        have += f" ({draw.epochs} epochs)" if draw.epochs > 1 else ""
        raise TrainingError(draw.where, expected=expected, found=have, fix=fix)


def _blocks(draw: Draw, documents: Documents) -> Iterator[list[tuple[int, int, str]]]:
    """(epoch, document, text) in blocks that are tokenised together."""
    block: list[tuple[int, int, str]] = []
    characters = 0
    for epoch, document in in_order(draw):
        text = documents.text(document)
        block.append((epoch, document, text))
        characters += len(text)
        if len(block) >= _BLOCK[0] or characters >= _BLOCK[1]:
            yield block
            block, characters = [], 0
    if block:
        yield block


class _Cutter:
    """Cuts a stream of ids into records; what is less than a row waits for the next documents."""

    def __init__(self, file: BinaryIO, kind: np.dtype[np.void], first: int, rows: int) -> None:
        self._file, self._kind, self._left = file, kind, rows
        self._row_tokens: int = kind["ids"].shape[0]
        self._ids: list[int] = []
        self._starts: list[int] = []  # of the documents that `_ids` holds, from its beginning
        self._first = first  # number of the first of them

    def add(self, ids: list[int]) -> None:
        """The next document."""
        self._starts.append(len(self._ids))
        self._ids += ids

    def flush(self) -> None:
        """Write all full rows that are wanted."""
        rows = min(self._left, len(self._ids) // self._row_tokens)
        if not rows:
            return
        end = rows * self._row_tokens
        starts = np.array(self._starts)
        begins = np.arange(rows + 1) * self._row_tokens
        which = np.searchsorted(starts, begins, side="right") - 1
        records = np.empty(rows, self._kind)
        records["document"] = self._first + which[:-1]
        records["offset"] = begins[:-1] - starts[which[:-1]]
        records["ids"] = np.array(self._ids[:end]).reshape(rows, self._row_tokens)
        self._file.write(records.tobytes())
        self._left -= rows
        self._ids = self._ids[end:]
        self._starts = (starts[which[-1] :] - end).tolist()
        self._first += int(which[-1])
