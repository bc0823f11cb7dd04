"""The lines of a file: how short they may be, the stream that draws them, and a line made a row."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from analysis360.errors import DataError
from analysis360.panel.rows import Row, Wanted, checked, parse_row
from analysis360.panel.streams import below, outputs, stream_key
from analysis360.series import Chunk, Layout

WINDOW = "window/1"
"""Lines by windows of bytes at random offsets (see `lines`)."""
CAP = 1 << 18
"""Bytes of the longest window: what is in memory at a time is some of them."""
LONGEST = 1 << 26
"""Bytes of the longest line; a longer one is no line of ids."""


def least_length(layout: Layout, width: int) -> int:
    """Bytes that no line goes below: of `row_tokens` ids, or else of `width`, with its newline."""
    ids = width if layout.row_tokens is None else layout.row_tokens
    names = sum(len(field.encode()) + len('"":[]') for field in layout.fields)
    commas = len(layout.fields) - 1 + max(0, ids - len(layout.fields))
    return min(CAP, len("{}\n") + names + commas + ids)


@dataclass(frozen=True)
class Lines:
    """The lines of one file: the stream that draws them, and a line made a row."""

    chunk: Chunk
    wanted: Wanted
    size: int
    """Bytes of the file."""

    @cached_property
    def bound(self) -> int:
        """L: bytes of a window, and of the shortest line."""
        return least_length(self.chunk.layout, self.wanted.width)

    @cached_property
    def _key(self) -> int:
        return stream_key(WINDOW, self.wanted.seed, self.chunk.digest)

    def offsets(self, first: int, count: int) -> NDArray[np.int64]:
        """[count] offsets u of draws first, first + 1, ..."""
        return below(outputs(self._key, first, count), self.size - 1 + self.bound) - self.bound

    def where(self, start: int) -> str:
        """The line that starts at a byte, for messages."""
        return f"{self.chunk.where} byte {start}"

    def row(self, start: int, line: bytes) -> Row | None:
        """The row of a line, given with its newline if it has one; None when its source is excluded.

        Raises DataError, also for a line shorter than `bound`, which would not be drawn as often.
        """
        ids, source = parse_row(line, self.chunk.layout.fields, self.where(start))
        excluded = source == self.chunk.excluded_source
        row = None if excluded else Row(start, checked(ids, self.wanted, self.where(start)), source)
        length = len(line) + (not line.endswith(b"\n"))
        if length < self.bound and self.chunk.role != "canary":
            least = self.chunk.layout.row_tokens or self.wanted.width
            raise DataError(
                f"{self.where(start)}: expected lines of at least {least} ids, {self.bound} bytes; "
                f"found {len(ids)} ids in {length} bytes; correct row_tokens in the manifest, or the file"
            )
        return row

    def too_long(self, start: int) -> DataError:
        """What to raise for a line longer than LONGEST."""
        return DataError(f"{self.where(start)}: no newline in {LONGEST} bytes; expected JSON lines")
