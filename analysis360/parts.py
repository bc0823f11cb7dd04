"""Parts: Parquet files of finished units. What each holds, and its rows read column by column.

A part lists its units in its footer, in the order of its rows. Nothing locks: a part may go away while it is
read, because a larger one took its place; what it held is then found in that one.
"""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from analysis360.errors import StoreError
from analysis360.hub.threads import in_threads
from analysis360.tasks import Key, Unit

FOOTER = b"analysis360"
NAMING = ("series", "chunk", "ckpt_digest", "chunk_digest")
READ_ATTEMPTS = 20
AT_A_TIME = 8
"""Parts that are read in threads, and held at once."""


@dataclass(frozen=True)
class StoredUnit:
    """Consecutive rows of one part: positions [start, stop) of a chunk's panel under one checkpoint."""

    part: Path
    offset: int
    """Rows of the part before its own."""
    key: Key
    start: int
    stop: int
    provenance: dict[str, Any]
    name: str = ""
    """Of the chunk, or the question set."""


class StoredData(NamedTuple):
    """A piece of data as the store knows it (see `tasks.Data`)."""

    name: str
    digest: str


class Piece(NamedTuple):
    """Consecutive rows that belong to one asked unit."""

    offset: int
    """Rows before its own, of the part or of what was read of it."""
    unit: int
    """Place of the unit among those asked for."""
    start: int
    """Panel position of its first row."""
    rows: int


Pieces = dict[Path, list[Piece]]
"""What to read of each part."""


class Rows:
    """The stored rows of the asked units, each once. They are found at once, from footers alone, and their
    columns are read when asked for: rows that are stored later do not join."""

    def __init__(self, units: Sequence[Unit], listed: Callable[[], Iterable[StoredUnit]]) -> None:
        """`listed` gives every stored unit, and is asked again where parts were replaced."""
        self._units, self._listed = units, listed
        found, self._provenance = self._find([[(unit.start, unit.stop)] for unit in units])
        self._held: list[list[tuple[Path, Piece]]] = [[] for _ in units]
        for part, pieces in found.items():
            for piece in pieces:
                self._held[piece.unit].append((part, piece))

    def __len__(self) -> int:
        return sum(self.stored)

    @property
    def provenance(self) -> list[dict[str, Any]]:
        """Of every part that holds some of the rows."""
        return list(self._provenance.values())

    def tally(self, labels: Callable[[dict[str, Any]], Iterable[str]]) -> Counter[str]:
        """How many rows have each label, which their part's provenance gives them."""
        of_part = {part: list(labels(provenance)) for part, provenance in self._provenance.items()}
        found: Counter[str] = Counter()
        for part, piece in itertools.chain.from_iterable(self._held):
            found.update(dict.fromkeys(of_part[part], piece.rows))
        return found

    @property
    def stored(self) -> list[int]:
        """[units] rows that are stored of each."""
        return [sum(piece.rows for _, piece in held) for held in self._held]

    def read(
        self, names: Sequence[str], units: Iterable[int] | None = None
    ) -> Iterator[tuple[pa.Table, list[Piece]]]:
        """Columns of the rows of all units, or of some, part by part; each table with the pieces in it.

        Beside a running sweep too. Raises StoreError naming a part that cannot be read.
        """
        held = itertools.chain.from_iterable(self._held if units is None else (self._held[i] for i in units))
        waiting, attempts = _by_part(held), 0
        while waiting:
            some = list(itertools.islice(waiting.items(), AT_A_TIME))
            found = in_threads(lambda asked: _read(asked[0], names, asked[1]), some, os.cpu_count() or 1)
            for (part, _), rows in zip(some, found, strict=True):
                if rows is not None:
                    del waiting[part]
                    yield rows
            if None in found:
                attempts += 1
                if attempts == READ_ATTEMPTS:
                    part = some[found.index(None)][0]
                    raise StoreError(f"{part} changed {attempts} times while it was read; try again")
                waiting = self._again(waiting)

    def table(self, names: Sequence[str], units: Iterable[int] | None = None) -> pa.Table:
        """The same as one table, beside `unit`: the place of each row's unit among those asked for."""
        tables = []
        for table, pieces in self.read(names, units):
            for piece in pieces:
                rows = table.slice(piece.offset, piece.rows)
                tables.append(rows.append_column("unit", pa.array(np.full(piece.rows, piece.unit, np.int32))))
        return pa.concat_tables(tables) if tables else pa.table({})

    def _again(self, waiting: Pieces) -> Pieces:
        """Where the waiting rows are now."""
        wanted: list[list[tuple[int, int]]] = [[] for _ in self._units]
        for pieces in waiting.values():
            for piece in pieces:
                wanted[piece.unit].append((piece.start, piece.start + piece.rows))
        found, _ = self._find(wanted)
        # a replacement can come between the list of parts and the look into one: then the old place is tried
        return found if _count(found) == _count(waiting) else waiting

    def _find(self, wanted: Sequence[Sequence[tuple[int, int]]]) -> tuple[Pieces, dict[Path, dict[str, Any]]]:
        """Where the wanted intervals of each unit's positions are, and the provenance of those parts."""
        asked: dict[Key, list[int]] = {}
        for i, unit in enumerate(self._units):
            asked.setdefault(unit.key, []).append(i)
        left = [list(intervals) for intervals in wanted]
        found: Pieces = {}
        provenance: dict[Path, dict[str, Any]] = {}
        for stored in self._listed():
            for i in asked.get(stored.key, ()):
                held = [both for one in left[i] if (both := _shared(one, stored))]
                for start, stop in held:
                    offset = stored.offset + start - stored.start
                    found.setdefault(stored.part, []).append(Piece(offset, i, start, stop - start))
                    provenance[stored.part] = stored.provenance
                if held:
                    left[i] = [gap for one in left[i] for gap in gaps(*one, held)]
        return found, provenance


def units_of(part: Path, schema_version: str) -> list[StoredUnit]:
    """The units a part holds, none where it has just been replaced. Raises StoreError for what is no part."""
    try:
        footer = json.loads(pq.read_metadata(part).metadata[FOOTER])
    except FileNotFoundError:
        return []
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise StoreError(f"{part} is not a result of this program: {error}; move it away") from None
    if footer.get("schema") != schema_version:
        raise StoreError(f"{part}: schema {footer.get('schema')!r}; this version reads {schema_version!r}")
    units = footer.pop("units")
    offsets = itertools.accumulate((u["stop"] - u["start"] for u in units), initial=0)
    return [
        StoredUnit(
            part, offset, Key(u["ckpt_digest"], u["chunk_digest"]), u["start"], u["stop"], footer, u["chunk"]
        )
        for offset, u in zip(offsets, units, strict=False)
    ]


def gaps(start: int, stop: int, covered: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The parts of [start, stop) that none of the `covered` intervals hold, in order."""
    left: list[tuple[int, int]] = []
    for first, last in sorted(covered):
        if start >= stop:
            break
        if first > start:
            left.append((start, min(first, stop)))
        start = max(start, last)
    if start < stop:
        left.append((start, stop))
    return left


def _shared(interval: tuple[int, int], stored: StoredUnit) -> tuple[int, int] | None:
    start, stop = max(interval[0], stored.start), min(interval[1], stored.stop)
    return (start, stop) if start < stop else None


def _by_part(held: Iterable[tuple[Path, Piece]]) -> Pieces:
    pieces: Pieces = {}
    for part, piece in held:
        pieces.setdefault(part, []).append(piece)
    return pieces


def _count(pieces: Pieces) -> int:
    return sum(piece.rows for some in pieces.values() for piece in some)


def _read(part: Path, names: Sequence[str], pieces: list[Piece]) -> tuple[pa.Table, list[Piece]] | None:
    """The row groups that hold the pieces, and the pieces with their offsets in those; None: it was replaced."""
    try:
        # reading ahead by threads costs more than it saves: the parts are on disk and one column is small
        with pq.ParquetFile(part, pre_buffer=False) as file:
            if sum(piece.rows for piece in pieces) == file.metadata.num_rows:
                table = file.read(columns=names, use_threads=False)
            else:
                groups, pieces = _groups(file.metadata, pieces)
                table = file.read_row_groups(groups, columns=names, use_threads=False)
            return table.replace_schema_metadata(None), pieces
    except FileNotFoundError:
        return None
    except (OSError, pa.ArrowException) as error:
        raise StoreError(
            f"{part} cannot be read: {error}; move it away and its units are computed again"
        ) from None


def _groups(metadata: Any, pieces: list[Piece]) -> tuple[list[int], list[Piece]]:
    """Numbers of the row groups that hold the pieces, and the pieces with their offsets in those alone."""
    sizes = np.array([metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)], np.int64)
    ends = np.cumsum(sizes)
    first = np.searchsorted(ends, [piece.offset for piece in pieces], side="right")
    last = np.searchsorted(ends, [piece.offset + piece.rows for piece in pieces], side="left")
    needed = np.zeros(len(sizes), bool)
    for a, b in zip(first, last, strict=True):
        needed[a : b + 1] = True
    skipped = np.cumsum(np.where(needed, 0, sizes))
    moved = [
        piece._replace(offset=piece.offset - int(skipped[a])) for piece, a in zip(pieces, first, strict=True)
    ]
    return np.flatnonzero(needed).tolist(), moved
