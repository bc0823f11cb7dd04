"""HDF5: rows of a dataset by their keyed ranks, through h5py; nothing in the file is executed or followed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis360.errors import DataError
from analysis360.panel.fixed import fixed_rows
from analysis360.panel.reading import Seekable, certain, opened
from analysis360.panel.rows import Row, Wanted, order_of
from analysis360.places import Span
from analysis360.series import Chunk

SIGNATURE = b"\x89HDF\r\n\x1a\n"
"""The first bytes, read before HDF5 sees the file: it does not bear a failure while it opens one."""
BATCH = 256
HELD = 1 << 23
"""Bytes of the dataset's chunks that are asked for at a time."""


def draw_hdf5(chunk: Chunk, wanted: Wanted) -> list[Row]:
    """Up to n rows of the layout's dataset, [rows, tokens] or [rows, n, tokens], by their keyed ranks.

    Costs the ids asked for where the dataset is contiguous, and the dataset's own (compressed) chunks
    that hold them where it is chunked. Raises DataError, also when h5py is not installed.
    """
    try:
        import h5py
    except ImportError:
        raise DataError(f"{chunk.where}: reading HDF5 needs h5py: pip install 'analysis360[hdf5]'") from None
    with opened(chunk) as [file]:
        adapter = Seekable(certain(file), through_c=True)
        if certain(file).read([(0, min(len(SIGNATURE), file.size))]) != [SIGNATURE]:
            raise DataError(f"{chunk.where} is no readable HDF5 file: it does not begin as one")
        try:
            with h5py.File(adapter, "r", rdcc_nbytes=1 << 20) as content:
                data = _dataset(h5py, content, chunk, wanted)
                order = order_of(chunk, data.shape[0], wanted)
                numbers = order if chunk.role == "canary" else order[: wanted.n]
                rows = {row.number: row for row in _rows(adapter, data, np.sort(numbers), chunk, wanted)}
            if adapter.problem is not None:
                raise adapter.problem
        except (OSError, RuntimeError, KeyError, ValueError, DataError) as error:
            if adapter.problem is not None:
                raise adapter.problem from None
            if isinstance(error, DataError):
                raise
            raise DataError(f"{chunk.where} is no readable HDF5 file: {error}") from None
    return [rows[number] for number in numbers.tolist()]


def _dataset(h5py: Any, content: Any, chunk: Chunk, wanted: Wanted) -> Any:
    """The dataset that the layout names; it must lie in this file. Raises DataError."""
    name, select = chunk.layout.dataset, chunk.layout.select
    if name is None:
        raise DataError(f"{chunk.where}: HDF5 needs the name of the dataset; it holds {', '.join(content)}")
    where = f"{chunk.where}: dataset {name}"
    path = PurePosixPath("/") / name
    for part in reversed([path, *path.parents][:-1]):  # from the top, so that no link is passed unseen
        if not isinstance(content.get(str(part), getlink=True), h5py.HardLink):
            raise DataError(
                f"{where} is not in the file (links are not followed); it holds {', '.join(content)}"
            )
    data = content[str(path)]
    if not isinstance(data, h5py.Dataset) or data.external or data.is_virtual or data.dtype.kind not in "iu":
        raise DataError(f"{where} is not an array of integers that lies in the file")
    if len(data.shape) != (2 if select is None else 3) or (
        select is not None and not 0 <= select < data.shape[1]
    ):
        expected = "[rows, tokens]" if select is None else f"[rows, more than {select}, tokens]"
        raise DataError(f"{where}: expected shape {expected}, found {list(data.shape)}")
    if data.shape[-1] < wanted.width:
        raise DataError(f"{where}: expected at least {wanted.width} ids a row; rows have {data.shape[-1]}")
    return data


def _rows(
    adapter: Seekable, data: Any, numbers: NDArray[np.int64], chunk: Chunk, wanted: Wanted
) -> Iterator[Row]:
    """Rows in ascending order; the bytes of many are asked for at once."""
    select = () if chunk.layout.select is None else (chunk.layout.select,)
    for batch in _batches(data, numbers.tolist()):
        adapter.hold([span for row in batch for span in _spans(data, row, select, wanted.width)])
        ids = (np.asarray(data[(row, *select, slice(wanted.width))]) for row in batch)
        yield from fixed_rows(chunk, batch, ids, wanted.vocabulary)


def _batches(data: Any, numbers: list[int]) -> Iterator[list[int]]:
    largest = 1 if data.chunks is None else int(np.prod(data.chunks)) * data.dtype.itemsize
    step = min(BATCH, max(1, HELD // largest))
    return (numbers[i : i + step] for i in range(0, len(numbers), step))


def _spans(data: Any, row: int, select: Sequence[int], width: int) -> list[Span]:
    """Where the first `width` ids of a row lie in the file."""
    if data.chunks is None:
        first = data.id.get_offset()
        if first is None:
            return []
        at = np.ravel_multi_index((row, *select, 0), data.shape)
        start = first + int(at) * data.dtype.itemsize
        return [(start, start + width * data.dtype.itemsize)]
    pieces = (data.id.get_chunk_info_by_coord((row, *select, at)) for at in range(0, width, data.chunks[-1]))
    return [(p.byte_offset, p.byte_offset + p.size) for p in pieces if p.byte_offset is not None]
