"""A chunk: rows of token ids, trained on, held out, or planted."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Literal

from analysis360.digests import digest_of
from analysis360.errors import DataError
from analysis360.places import Bytes, Place

Role = Literal["train", "held-out", "canary"]


@dataclass(frozen=True)
class Layout:
    """How rows lie in the files of a chunk."""

    format: str = "jsonl"
    """`jsonl`, `bin` (rows of equal size), `parquet` or `hdf5`."""
    fields: tuple[str, ...] = ("token_ids",)
    """Fields of a row that hold ids; several are joined in this order."""
    row_tokens: int | None = None
    """Ids a row, when the release says so. A line of so many ids has a least length in bytes."""
    token_dtype: str | None = None
    """Of `bin`: `uint16`, `uint32` or `int32`, little endian."""
    dataset: str | None = None
    """Of `hdf5`: the dataset that holds the ids, [rows, tokens] or [rows, n, tokens]."""
    select: int | None = None
    """Of `hdf5`: which of the n."""


@dataclass(frozen=True)
class Chunk:
    """Rows of one file, or a window of rows over the files of a release."""

    name: str
    index: int
    """Position among the chunks of its role."""
    place: Place
    files: tuple[str, ...]
    """Names in the place; several only for a window of `bin`, whose bytes they hold one after another."""
    role: Role
    layout: Layout = Layout()
    excluded_source: str | None = None
    """Rows of this source are no text and are not sampled."""
    window: tuple[int, int] | None = None
    """Of `bin`: rows [first, last) of the files, counted from the first byte of the first file."""

    @property
    def where(self) -> str:
        """The chunk and its file, for messages."""
        return f"chunk {self.name}: {self.place.where}/{self.files[0]}"

    @cached_property
    def digest(self) -> str:
        """Content identity: digest of the files' SHA-256 and of what is read of them (16 hex digits)."""
        try:
            content = [self.place.sha256(name) for name in self.files]
        except OSError as error:
            raise DataError(f"{self.where} cannot be read: {error.strerror}") from None
        return digest_of(
            [content, self.role == "canary", self.excluded_source, asdict(self.layout), self.window]
        )

    def open(self) -> list[Bytes]:
        """The files for random access. Raises DataError."""
        try:
            return [self.place.open(name) for name in self.files]
        except OSError as error:
            raise DataError(f"{self.where} cannot be read: {error.strerror}") from None
