"""A row as it is read: where it lies, its ids, its source; and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis360.errors import DataError
from analysis360.panel.streams import ranked
from analysis360.series import Chunk

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Wanted:
    """What is drawn."""

    n: int
    """Sequences; canaries are all taken."""
    width: int
    """Ids a sequence."""
    seed: int
    """Master seed."""
    vocabulary: int
    """Ids must be below it."""


class Row(NamedTuple):
    """One row that may be in a panel."""

    number: int
    """See `Panel.rows`."""
    ids: NDArray[np.int32]
    """[width]"""
    source: str


def order_of(chunk: Chunk, count: int, wanted: Wanted) -> NDArray[np.int64]:
    """Numbers of rows 0 ... count - 1 in the order they are drawn; canaries in that of the file."""
    if chunk.role == "canary":
        return np.arange(count)
    return ranked(count, wanted.seed, chunk.digest)


def parse_row(line: bytes, fields: Sequence[str], where: str) -> tuple[list[Any], str]:
    """(ids, source) of one JSON line. Raises DataError."""
    try:
        record = json.loads(line)
        ids = [token for field in fields for token in record[field]]
    except (ValueError, KeyError, TypeError, RecursionError):
        expected = "{" + ", ".join(f'"{field}": [ids]' for field in fields) + ', "source": "..."}'
        raise DataError(f"{where}: expected {expected}, found {line[:60]!r}") from None
    return ids, str(record.get("source", UNKNOWN))


def checked(ids: Sequence[Any], wanted: Wanted, where: str) -> NDArray[np.int32]:
    """The first `width` ids, each an integer inside the vocabulary. Raises DataError."""
    width, vocabulary = wanted.width, wanted.vocabulary
    if len(ids) < width:
        raise DataError(f"{where}: expected at least {width} ids (prompt + continuation), found {len(ids)}")
    for position, token in enumerate(ids[:width]):
        if type(token) is not int:
            raise DataError(f"{where}: id {token!r} at position {position} is not an integer")
        if not 0 <= token < vocabulary:
            raise DataError(
                f"{where}: id {token} at position {position}; the vocabulary has {vocabulary} ids"
            )
    return np.array(ids[:width], dtype=np.int32)
