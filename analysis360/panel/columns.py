"""Parquet: rows by their keyed ranks, read a row group at a time, only the columns that are needed.

**Bytes.** A row cannot be read without its row group: n uniform rows of a file with few, large row
groups cost the column chunks of nearly all of them. Only where there are many more row groups than n
is it less than the columns whole. Memory holds the column chunks of one row group.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis360.errors import DataError
from analysis360.panel.reading import Seekable, certain, opened
from analysis360.panel.rows import UNKNOWN, Row, Wanted, checked, order_of
from analysis360.series import Chunk

SOURCE = "source"
DECODED = 256
"""Rows decoded at a time."""


def draw_parquet(chunk: Chunk, wanted: Wanted) -> list[Row]:
    """Up to n rows of a Parquet file in the order of their keyed ranks. Raises DataError.

    Fields are lists of integers, of any or of fixed size. To leave out a source its whole column is read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with opened(chunk) as [file]:
        adapter = Seekable(certain(file))
        try:
            with pq.ParquetFile(adapter, pre_buffer=True) as table:
                return _Table(chunk, wanted, table).draw()
        except (OSError, pa.ArrowException) as error:
            if adapter.problem is not None:
                raise adapter.problem from None
            reason = str(error).splitlines()[0]
            raise DataError(f"{chunk.where} is no readable Parquet file: {reason}") from None


class _Table:
    def __init__(self, chunk: Chunk, wanted: Wanted, table: Any) -> None:
        self._chunk, self._wanted, self._table = chunk, wanted, table
        groups = range(table.metadata.num_row_groups)
        sizes = (table.metadata.row_group(i).num_rows for i in groups)
        self._firsts = list(accumulate(sizes, initial=0))
        names = table.schema_arrow.names
        missing = [field for field in chunk.layout.fields if field not in names]
        if missing:
            raise DataError(f"{chunk.where}: expected columns {', '.join(missing)}; found {', '.join(names)}")
        for field in chunk.layout.fields:
            kind = str(table.schema_arrow.field(field).type)
            if not kind.startswith(("list<", "large_list<", "fixed_size_list<")):
                raise DataError(f"{chunk.where}: column {field}: expected lists of ids, found {kind}")
        self._source = [SOURCE] if SOURCE in names else []

    def draw(self) -> list[Row]:
        chosen = self._chosen()
        rows: dict[int, Row] = {}
        for number, values, source in self._read(np.sort(chosen)):
            where = f"{self._chunk.where} row {number}"
            if any(value is None for value in values):
                raise DataError(f"{where}: expected ids, found null")
            ids = [token for value in values for token in value]
            rows[number] = Row(number, checked(ids, self._wanted, where), source)
        return [rows[number] for number in chosen.tolist()]

    def _chosen(self) -> NDArray[np.int64]:
        """[n] row numbers in the order they are drawn."""
        order = order_of(self._chunk, self._firsts[-1], self._wanted)
        if self._chunk.excluded_source is not None and self._source:
            order = order[self._eligible()[order]]
        return order if self._chunk.role == "canary" else order[: self._wanted.n]

    def _eligible(self) -> NDArray[np.bool_]:
        """[rows] whether each is of another source than the excluded one."""
        found: list[bool] = []
        for group in range(len(self._firsts) - 1):
            for batch in self._table.iter_batches(DECODED, row_groups=[group], columns=self._source):
                named = (_named(source) for source in batch.column(0).to_pylist())
                found.extend(source != self._chunk.excluded_source for source in named)
        return np.array(found, dtype=bool)

    def _read(self, numbers: NDArray[np.int64]) -> Iterator[tuple[int, list[Any], str]]:
        """(row, list of ids of each field, source) of rows in ascending order."""
        fields = list(self._chunk.layout.fields)
        for group, first in enumerate(self._firsts[:-1]):
            bounds = np.searchsorted(numbers, [first, self._firsts[group + 1]])
            inside = numbers[bounds[0] : bounds[1]]
            if not len(inside):
                continue
            for batch in self._table.iter_batches(
                DECODED, row_groups=[group], columns=[*fields, *self._source]
            ):
                here = inside[(inside >= first) & (inside < first + len(batch))]
                yield from self._rows(batch, here, first)
                first += len(batch)

    def _rows(
        self, batch: Any, numbers: NDArray[np.int64], first: int
    ) -> Iterator[tuple[int, list[Any], str]]:
        for number in numbers.tolist():
            lists = [batch.column(field)[number - first].values for field in self._chunk.layout.fields]
            values = [None if ids is None else ids[: self._wanted.width].to_pylist() for ids in lists]
            source = batch.column(SOURCE)[number - first].as_py() if self._source else None
            yield number, values, _named(source)


def _named(source: Any) -> str:
    return UNKNOWN if source is None else str(source)
