"""Panels: a seeded, prefix-stable sample of the sequences of a chunk, read by ranges.

The panel of 100 is the first 100 of the panel of 1000, every row is equally likely, and each chunk
has a stream of its own, keyed by (sampler, seed, content of the chunk). What is drawn depends on the
bytes of the chunk alone: from disk and from a Hub comes the same panel. `lines` reads JSON lines,
`fixed` rows of equal size, `columns` Parquet and `arrays` HDF5; `place.traffic` counts what it cost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis360.errors import DataError
from analysis360.panel.arrays import draw_hdf5
from analysis360.panel.columns import draw_parquet
from analysis360.panel.fixed import draw_fixed
from analysis360.panel.line_stream import WINDOW
from analysis360.panel.lines import draw_lines
from analysis360.panel.rows import Row, Wanted
from analysis360.panel.streams import RANK
from analysis360.series import Chunk

__all__ = ["RANK", "SAMPLER", "WINDOW", "Panel", "draw_panel", "first_position"]

SAMPLER = f"{WINDOW} {RANK}"
"""Names of the samplers, of JSON lines and of the rest: a panel of other samplers is another panel."""

READERS: dict[str, Callable[[Chunk, Wanted], list[Row]]] = {
    "jsonl": draw_lines,
    "bin": draw_fixed,
    "parquet": draw_parquet,
    "hdf5": draw_hdf5,
}


@dataclass(frozen=True)
class Panel:
    """Sampled sequences of one chunk, in the order they were drawn."""

    ids: NDArray[np.int32]
    """[n, width] token ids from the start of each row."""
    rows: NDArray[np.int64]
    """[n] where each came from: the row number (of `bin`, counted over all files); of JSON lines the byte
    at which the line starts, shown by `tail -c +$((row + 1)) FILE | head -1`; of canaries the line, from 0."""
    sources: NDArray[np.str_]
    """[n] named source of each row."""
    first_eos: NDArray[np.int32]
    """[n] position of the first EOS within the width; width when there is none."""

    def __len__(self) -> int:
        return len(self.rows)

    def head(self, n: int) -> Panel:
        """The first n sequences: exactly the panel of n."""
        return Panel(self.ids[:n], self.rows[:n], self.sources[:n], self.first_eos[:n])


def draw_panel(chunk: Chunk, *, n: int, width: int, seed: int, vocabulary: int, eos: int | None) -> Panel:
    """Draw up to n sequences of `width` ids from a chunk.

    Fewer than n are returned when the chunk has fewer. Canaries are all taken, in file order. Raises
    DataError naming chunk, file and byte (or row) for what cannot be read, malformed rows, ids that
    are not integers or lie outside the vocabulary, and rows shorter than `width`.
    """
    reader = READERS.get(chunk.layout.format)
    if reader is None:
        known = ", ".join(READERS)
        raise DataError(f"{chunk.where}: expected a format among {known}; found {chunk.layout.format!r}")
    try:
        drawn = reader(chunk, Wanted(n, width, seed, vocabulary))
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{chunk.where} cannot be read: {reason}") from None
    ids = np.array([row.ids for row in drawn], dtype=np.int32).reshape(len(drawn), width)
    numbers = np.array([row.number for row in drawn], dtype=np.int64)
    sources = np.array([row.source for row in drawn], dtype=np.str_)
    return Panel(ids, numbers, sources, first_position(ids, eos))


def first_position(ids: NDArray[np.int32], token: int | None) -> NDArray[np.int32]:
    """[n] position of the first `token` in each row of ids [n, width]; width when there is none."""
    hits = np.zeros(ids.shape, dtype=bool) if token is None else ids == token
    return np.where(hits.any(axis=1), hits.argmax(axis=1), ids.shape[1]).astype(np.int32)
