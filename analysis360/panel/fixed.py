"""Rows of equal size in binary files: exact rows, and of each only the ids that are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from analysis360.errors import DataError
from analysis360.panel.reading import certain, opened
from analysis360.panel.rows import UNKNOWN, Row, Wanted, order_of
from analysis360.places import Bytes, Span
from analysis360.series import Chunk, Layout

DTYPES = {"uint16": "<u2", "uint32": "<u4", "int32": "<i4"}
BATCH = 4096


def draw_fixed(chunk: Chunk, wanted: Wanted) -> list[Row]:
    """Up to n rows of a `bin` chunk in the order of their keyed ranks.

    Costs width x itemsize bytes a row (twice that where nothing guards the connection); the ranks
    take 16 bytes of memory a row of the window. Raises DataError.
    """
    tokens, dtype = _shape(chunk.layout, chunk.where)
    if wanted.width > tokens:
        raise DataError(f"{chunk.where}: expected at least {wanted.width} ids a row; rows have {tokens}")
    with opened(chunk) as files:
        first, last = _window(chunk, sum(file.size for file in files), tokens * dtype.itemsize)
        order = order_of(chunk, last - first, wanted) + first
        numbers: list[int] = (order if chunk.role == "canary" else order[: wanted.n]).tolist()
        joined = _Joined([certain(file) for file in files])
        rows: list[Row] = []
        for i in range(0, len(numbers), BATCH):
            batch = numbers[i : i + BATCH]
            starts = [number * tokens * dtype.itemsize for number in batch]
            read = joined.read([(start, start + wanted.width * dtype.itemsize) for start in starts])
            ids = (np.frombuffer(data, dtype) for data in read)
            rows.extend(fixed_rows(chunk, batch, ids, wanted.vocabulary))
    return rows


def fixed_rows(
    chunk: Chunk, numbers: Sequence[int], ids: Iterable[NDArray[np.integer]], vocabulary: int
) -> list[Row]:
    """Rows of integer arrays, each id inside the vocabulary. Raises DataError naming the row."""
    rows: list[Row] = []
    for number, row in zip(numbers, ids, strict=True):
        outside = np.flatnonzero((row < 0) | (row >= vocabulary))
        if len(outside):
            at = int(outside[0])
            raise DataError(
                f"{chunk.where} row {number}: id {row[at]} at position {at}; the vocabulary has {vocabulary} ids"
            )
        rows.append(Row(number, row.astype(np.int32), UNKNOWN))
    return rows


def _shape(layout: Layout, where: str) -> tuple[int, np.dtype[np.integer]]:
    """(ids a row, their dtype)."""
    if not layout.row_tokens or layout.token_dtype not in DTYPES:
        raise DataError(
            f"{where}: rows of `bin` need row_tokens and token_dtype ({', '.join(DTYPES)}); "
            f"found {layout.row_tokens} and {layout.token_dtype!r}"
        )
    return layout.row_tokens, np.dtype(DTYPES[layout.token_dtype])


def _window(chunk: Chunk, size: int, row_bytes: int) -> tuple[int, int]:
    """Rows [first, last) that are drawn from."""
    if chunk.window is None:
        if size % row_bytes:
            raise DataError(f"{chunk.where}: {size} bytes are no whole number of rows of {row_bytes} bytes")
        return 0, size // row_bytes
    first, last = chunk.window
    if not 0 <= first <= last or last * row_bytes > size:
        held = size // row_bytes
        raise DataError(f"{chunk.where}: expected rows [{first}, {last}); the files hold {held} whole rows")
    return first, last


class _Joined:
    """Files read as one, their bytes one after another."""

    def __init__(self, files: Sequence[Bytes]) -> None:
        self._files = files
        self._starts = list(accumulate((file.size for file in files), initial=0))

    def read(self, spans: Sequence[Span]) -> list[bytes]:
        """Spans, whole and in order; each file is asked once for all its parts of them."""
        pieces = [b""] * len(spans)
        for file, first in zip(self._files, self._starts, strict=False):
            parts = [(max(a - first, 0), min(b - first, file.size)) for a, b in spans]
            inside = [i for i, (a, b) in enumerate(parts) if a < b]
            if inside:
                for i, data in zip(inside, file.read([parts[i] for i in inside]), strict=True):
                    pieces[i] += data
        return pieces
