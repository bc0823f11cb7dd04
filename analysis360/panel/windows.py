"""JSON lines drawn from a large file: windows fetched, then the lines they drew completed."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from analysis360.panel.line_stream import LONGEST, Lines
from analysis360.panel.rows import Row
from analysis360.places import Bytes, Span

BATCH = 1 << 22
"""Bytes asked for at a time."""
FIRST_WINDOWS, FIRST_LINES = 256, 32
"""Of the first batches, which tell how long lines are."""
REQUEST = 1 << 13
"""Bytes that one request more is held to be worth, when it is weighed against reading too far."""
REMEMBERED = 512


@dataclass(frozen=True)
class Hit:
    """A line that a window drew."""

    start: int
    """Byte at which it starts."""
    head: bytes
    """What the window holds of it."""


class Windows:
    """The draws of one file in the order of its stream."""

    def __init__(self, lines: Lines, file: Bytes) -> None:
        self._lines, self._file = lines, file
        self._tried = self._drew = self._spent = 0
        self._seen: set[int] = set()
        self._lengths: deque[int] = deque(maxlen=REMEMBERED)

    def draw(self) -> list[Row] | None:
        """Rows of the panel; None when to read the whole file is no dearer than to go on. Raises DataError."""
        rows: list[Row] = []
        hits: deque[Hit] = deque()
        while (missing := self._lines.wanted.n - len(rows)) > 0:
            if hits:
                count = min(missing, self._lines_at_once(), len(hits))
                rows.extend(self._complete([hits.popleft() for _ in range(count)]))
            elif self._dearer_than_whole(len(rows), missing):
                return None
            else:
                hits.extend(self._next(self._windows_for(missing, len(rows))))
        return rows

    def _dearer_than_whole(self, kept: int, missing: int) -> bool:
        """Whether the cost so far, carried on to n rows, reaches that of the file."""
        size = self._file.size
        return self._spent >= size or self._spent * missing >= size * max(kept, 1)

    def _windows_for(self, missing: int, kept: int) -> int:
        """How many windows are needed for the rows still missing, as far as they fit into a batch."""
        needed = ceil(missing * max(1.0, self._tried / kept)) if kept else max(missing, self._tried)
        most = BATCH // self._lines.bound
        return min(needed, most if self._tried else min(FIRST_WINDOWS, most))

    def _lines_at_once(self) -> int:
        if not self._lengths:
            return FIRST_LINES
        return max(1, BATCH // (sum(self._lengths) // len(self._lengths)))

    def _next(self, count: int) -> list[Hit]:
        """New lines that the next windows of the stream draw."""
        offsets = self._lines.offsets(self._tried, count).tolist()
        length, size = self._lines.bound, self._file.size
        self._tried += count
        hits: list[Hit] = []
        windows = self._read([(max(u, 0), min(u + length, size)) for u in offsets])
        for u, window in zip(offsets, windows, strict=True):
            hit = self.hit(u, window)
            self._drew += hit is not None
            if hit is not None and hit.start not in self._seen:
                self._seen.add(hit.start)
                hits.append(hit)
        return hits

    def hit(self, u: int, window: bytes) -> Hit | None:
        """The line that starts after the newline in the window at u, none when there is none."""
        newline = -1 if u < 0 else window.find(b"\n")
        start = max(u, 0) + newline + 1
        if (u >= 0 and newline < 0) or start >= self._file.size:
            return None
        head = window[newline + 1 :]
        if (end := head.find(b"\n")) >= 0:
            self._lines.row(start, head[: end + 1])  # raises: it is shorter than a window
        return Hit(start, head)

    def _complete(self, hits: Sequence[Hit]) -> list[Row]:
        """Rows of the lines, read to their ends, less those of the excluded source."""
        size = self._file.size
        texts = [hit.head for hit in hits]
        short = [i for i, hit in enumerate(hits) if hit.start + len(hit.head) < size]
        while short:
            stops = [min(hits[i].start + self._guess(len(texts[i])), size) for i in short]
            spans = [(hits[i].start + len(texts[i]), stop) for i, stop in zip(short, stops, strict=True)]
            more: list[int] = []
            for i, stop, piece in zip(short, stops, self._read(spans), strict=True):
                end = piece.find(b"\n")
                texts[i] += piece if end < 0 else piece[: end + 1]
                if len(texts[i]) > LONGEST:
                    raise self._lines.too_long(hits[i].start)
                if end < 0 and stop < size:
                    more.append(i)
            short = more
        self._lengths.extend(len(text) for text in texts)
        rows = (self._lines.row(hit.start, text) for hit, text in zip(hits, texts, strict=True))
        return [row for row in rows if row is not None]

    def _guess(self, have: int) -> int:
        """Bytes of a line to read in one request, when it is longer than `have`.

        The least costly among the lengths seen, a request more weighed against bytes past the end.
        """
        lengths = np.sort([length for length in self._lengths if length > have])
        if not len(lengths):
            mean = self._lines.bound * self._tried // self._drew
            return max(mean, have + max(have // 2, REQUEST // 2))
        count = np.arange(1, len(lengths) + 1)
        past = lengths * count - np.cumsum(lengths)
        return int(lengths[np.argmin(past + REQUEST * (len(lengths) - count))])

    def _read(self, spans: Sequence[Span]) -> list[bytes]:
        self._spent += sum(stop - start for start, stop in spans)
        read = iter(self._file.read([span for span in spans if span[0] < span[1]]))
        return [next(read) if start < stop else b"" for start, stop in spans]
