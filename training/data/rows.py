"""What prepared rows are made of: streams of random numbers, the held-out rule, records and lines."""

import hashlib
import json
import math
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "Digests",
    "Ids",
    "Numbers",
    "Pack",
    "Stream",
    "held_out",
    "is_held_out",
    "random",
    "record_type",
    "row_line",
]

Ids = npt.NDArray[np.int32]
"""Token ids."""
Numbers = npt.NDArray[np.int64]
"""Numbers of rows or of documents."""
Digests = npt.NDArray[np.uint64]
"""The first eight bytes of SHA-256 of each text, as a big-endian number."""


@dataclass(frozen=True)
class Pack:
    """Rows of one take, or of one source's held-out text, before they are permuted."""

    path: Path
    """File of records, see `record_type`."""
    source: str
    """Name of the source."""
    rows: int
    """Records in the file."""


class Stream(IntEnum):
    """What a stream of random numbers is for: each has its own, so that none shifts another."""

    DOCUMENTS = 0
    TRAIN_ROWS = 1
    HELD_OUT_ROWS = 2
    CANARY_IDS = 3
    CANARY_PLACES = 4
    DUPLICATES = 5
    EPOCHS = 6


def random(seed: int, stream: Stream, *more: int) -> np.random.Generator:
    """The generator of one stream of the seed."""
    return np.random.default_rng([seed, int(stream), *more])


def is_held_out(document: str, fraction: float) -> bool:
    """Whether a document is never trained on: its text alone decides, so copies fall on the same side."""
    digest = hashlib.sha256(document.encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def held_out(digests: Digests, fraction: float) -> npt.NDArray[np.bool_]:
    """`is_held_out` of many documents by their digests."""
    return digests < np.uint64(math.ceil(fraction * 2**64))


def record_type(row_tokens: int, vocabulary: int) -> np.dtype[np.void]:
    """A row on disk before it is permuted: the document and the token of it that it begins at, and its ids."""
    kind = "<u2" if vocabulary <= 1 << 16 else "<u4"
    return np.dtype([("document", "<i8"), ("offset", "<i8"), ("ids", kind, (row_tokens,))])


def row_line(ids: list[int], source: str, **place: int) -> str:
    """A row as a line of JSON, in the shape Amber's data has, with the place of its text where it has one."""
    row: dict[str, Any] = {"token_ids": ids, "source": source} | place
    return json.dumps(row) + "\n"
