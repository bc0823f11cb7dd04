"""Panels: a seeded, prefix-stable sample of the sequences of a chunk.

The sampler ranks the rows of a chunk by a keyed hash of their number, so the panel of 100 is the
first 100 of the panel of 1000, every row is equally likely, and each chunk has a stream of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from analysis360.digests import digest_of
from analysis360.errors import DataError
from analysis360.series import Chunk

SAMPLER = "keyed-rank/1"
BLOCK = 1 << 22


@dataclass(frozen=True)
class Panel:
    """Sampled sequences of one chunk, in the order they were drawn."""

    ids: NDArray[np.int32]
    """[n, width] token ids from the start of each row."""
    rows: NDArray[np.int64]
    """[n] row of the chunk each came from."""
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
    """Draw up to n sequences of `width` ids from a chunk of JSON lines.

    Fewer than n are returned when the chunk has fewer. Canaries are all taken, in file order.
    Raises DataError naming file and line for malformed JSON, ids that are not integers or lie
    outside the vocabulary, and rows shorter than `width`.
    """
    try:
        with chunk.path.open("rb") as file:
            starts = line_starts(file)
            if chunk.role == "canary":
                n, order = len(starts), np.arange(len(starts))
            else:
                order = ranked(len(starts), seed, chunk.digest)
            picked = list(_pick(file, chunk, starts, order, n, width, vocabulary))
    except OSError as error:
        raise DataError(f"chunk {chunk.name}: {chunk.path} cannot be read: {error.strerror}") from None
    ids = np.array([row_ids for _, row_ids, _ in picked], dtype=np.int32).reshape(len(picked), width)
    rows = np.array([row for row, _, _ in picked], dtype=np.int64)
    return Panel(
        ids, rows, np.array([source for _, _, source in picked], dtype=np.str_), first_position(ids, eos)
    )


def first_position(ids: NDArray[np.int32], token: int | None) -> NDArray[np.int32]:
    """[n] position of the first `token` in each row of ids [n, width]; width when there is none."""
    hits = np.zeros(ids.shape, dtype=bool) if token is None else ids == token
    return np.where(hits.any(axis=1), hits.argmax(axis=1), ids.shape[1]).astype(np.int32)


def ranked(count: int, seed: int, identity: str) -> NDArray[np.int64]:
    """[count] row numbers in the order they are drawn, a permutation keyed by (seed, chunk identity).

    The key of a row is splitmix64 of its number under a 64-bit stream key, which does not depend
    on the version of any library.
    """
    stream = int(digest_key(seed, identity), 16)
    with np.errstate(over="ignore"):
        z = np.uint64(stream) + (np.arange(count, dtype=np.uint64) + np.uint64(1)) * np.uint64(
            0x9E3779B97F4A7C15
        )
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return np.argsort(z, kind="stable").astype(np.int64)


def digest_key(seed: int, identity: str) -> str:
    """The 64-bit stream key (16 hex digits) of a chunk under a master seed."""
    return digest_of([SAMPLER, seed, identity])


def line_starts(file: BinaryIO) -> NDArray[np.int64]:
    """[rows] byte offset at which each line starts; memory: 8 bytes a line."""
    file.seek(0)
    ends: list[NDArray[np.int64]] = []
    size = 0
    while block := file.read(BLOCK):
        ends.append(np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == 10) + size + 1)
        size += len(block)
    starts = np.concatenate([np.zeros(1, dtype=np.int64), *ends])
    inside: NDArray[np.int64] = starts[starts < size]
    return inside


def _pick(
    file: BinaryIO,
    chunk: Chunk,
    starts: NDArray[np.int64],
    order: NDArray[np.int64],
    n: int,
    width: int,
    vocabulary: int,
) -> Iterator[tuple[int, list[int], str]]:
    found = 0
    for row in order:
        if found == n:
            return
        file.seek(int(starts[row]))
        where = f"chunk {chunk.name}: {chunk.path} line {int(row) + 1}"
        ids, source = parse_row(file.readline(), chunk.fields, where)
        if source == chunk.excluded_source:
            continue
        yield int(row), checked(ids, width, vocabulary, where), source
        found += 1


def parse_row(line: bytes, fields: tuple[str, ...], where: str) -> tuple[list[int], str]:
    """(ids, source) of one JSON line. Raises DataError."""
    try:
        record = json.loads(line)
        ids = [token for field in fields for token in record[field]]
    except (ValueError, KeyError, TypeError, RecursionError):
        expected = "{" + ", ".join(f'"{field}": [ids]' for field in fields) + ', "source": "..."}'
        raise DataError(f"{where}: expected {expected}, found {line[:60]!r}") from None
    return ids, str(record.get("source", "unknown"))


def checked(ids: list[int], width: int, vocabulary: int, where: str) -> list[int]:
    """The first `width` ids, each an integer inside the vocabulary. Raises DataError."""
    if len(ids) < width:
        raise DataError(f"{where}: expected at least {width} ids (prompt + continuation), found {len(ids)}")
    for position, token in enumerate(ids[:width]):
        if type(token) is not int:
            raise DataError(f"{where}: id {token!r} at position {position} is not an integer")
        if not 0 <= token < vocabulary:
            raise DataError(
                f"{where}: id {token} at position {position}; the vocabulary has {vocabulary} ids"
            )
    return ids[:width]
