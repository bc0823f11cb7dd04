"""JSON lines of a file that is read whole: canaries, small files, and panels that want most of the rows."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from analysis360.errors import DataError
from analysis360.panel.line_stream import LONGEST, Lines
from analysis360.panel.reading import whole
from analysis360.panel.rows import Row
from analysis360.places import Bytes

FEWEST_DRAWS, MOST_DRAWS = 1 << 12, 1 << 18


@dataclass(frozen=True)
class Scan:
    """What is kept of a file: 8 bytes a line, and its row."""

    starts: NDArray[np.int64]
    """[lines] byte at which each starts."""
    rows: list[Row | None]
    """[lines] None where the source is excluded."""


def in_file_order(lines: Lines, file: Bytes) -> list[Row]:
    """Every row, numbered by its line from 0."""
    rows = _checked_scan(lines, file).rows
    return [Row(i, row.ids, row.source) for i, row in enumerate(rows) if row is not None]


def draw_whole(lines: Lines, file: Bytes) -> list[Row]:
    """The rows that windows over the file draw, found in the list of its lines. Raises DataError.

    Ends when every line was drawn: no more than (size / L) x (ln lines + 1) draws are to be expected.
    """
    found = _checked_scan(lines, file)
    drawn = (found.rows[i] for i in draws(lines, found.starts))
    return list(islice((row for row in drawn if row is not None), lines.wanted.n))


def draws(lines: Lines, starts: NDArray[np.int64]) -> Iterator[int]:
    """Numbers of the lines, each once, in the order in which windows draw them."""
    drawn = np.zeros(len(starts), dtype=bool)
    at, count = 0, FEWEST_DRAWS
    while not drawn.all():
        hits = lines_hit(starts, lines.offsets(at, count), lines.bound)
        new = hits[~drawn[hits]]
        _, first = np.unique(new, return_index=True)
        ordered = new[np.sort(first)]
        drawn[ordered] = True
        yield from ordered.tolist()
        at, count = at + count, min(2 * count, MOST_DRAWS)


def lines_hit(starts: NDArray[np.int64], offsets: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """The line that each window of `length` bytes draws, in order, less the windows that draw none."""
    ends = np.append(starts, np.iinfo(np.int64).max)
    line = np.searchsorted(starts, offsets + 1)
    hits: NDArray[np.int64] = line[ends[line] <= offsets + length]
    return hits


def _checked_scan(lines: Lines, file: Bytes) -> Scan:
    """The scan; from afar of bytes that have the SHA-256 that the place states, read again if they do not."""
    place, name = lines.chunk.place, lines.chunk.files[0]
    if not place.far:
        return _scan(lines, whole(file))
    for _ in range(2):
        digest = hashlib.sha256()
        pieces = _hashed(whole(file), digest)
        problem: DataError | None = None
        try:
            found = _scan(lines, pieces)
        except DataError as error:
            problem = error
        for _ in pieces:  # to the end, so that a malformed file and a damaged one can be told apart
            pass
        if digest.hexdigest() == place.sha256(name):
            if problem is not None:
                raise problem
            return found
    raise DataError(
        f"{lines.chunk.where}: expected SHA-256 {place.sha256(name)}; twice read {digest.hexdigest()}; "
        "the file changed, or the connection damages what it carries: run again"
    )


def _hashed(pieces: Iterator[bytes], digest: hashlib._Hash) -> Iterator[bytes]:
    for piece in pieces:
        digest.update(piece)
        yield piece


def _scan(lines: Lines, pieces: Iterator[bytes]) -> Scan:
    starts, rows = array("q"), list[Row | None]()
    for start, line in _split(lines, pieces):
        starts.append(start)
        rows.append(lines.row(start, line))
    return Scan(np.array(starts, dtype=np.int64), rows)


def _split(lines: Lines, pieces: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    """(start, line with its newline) of every line; bytes of one line and one piece are held."""
    start, rest = 0, b""
    for piece in pieces:
        *ended, rest = (rest + piece).split(b"\n")
        for text in ended:
            yield start, text + b"\n"
            start += len(text) + 1
        if len(rest) > LONGEST:
            raise lines.too_long(start)
    if rest:
        yield start, rest
