"""Numbers of texts, kept by the text's hash: what one checkpoint wrote and another writes again is scored once.

    ROOT/scorer=<identity>/part-<unique>.parquet      text (its SHA-256, 16 bytes), a column a number

Nothing locks: a part has a name of its own and is complete when it exists; what stands in two of them is the same.
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from analysis360.errors import StoreError
from analysis360.scorers import Scorer, Scores

AT_A_TIME = 1024
"""Texts scored between two reports of progress."""
FLUSH_SECONDS = 20.0
"""Numbers are written this often: what an interrupted run loses."""
MOST_PARTS = 16
"""Parts that lie side by side before they are written as one."""


class Cached:
    """A scorer with a folder."""

    def __init__(self, scorer: Scorer, root: Path) -> None:
        self.scorer = scorer
        self.folder = root / f"scorer={scorer.identity}"
        self.scored = 0
        """Texts that were scored, not found."""
        self.seconds = 0.0
        """That the scorer took for them."""
        fields = [pa.field("text", pa.binary(16)), *(pa.field(name, pa.float64()) for name in scorer.columns)]
        self._known = pa.schema(fields).empty_table()
        self._read: set[Path] = set()
        """Parts whose numbers are among those known."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The scorer's."""
        return self.scorer.columns

    def score(self, texts: Sequence[str], tell: Callable[[int], None] = lambda _: None) -> Scores:
        """The numbers of each text; what is new is scored and kept. `tell` hears how many texts are done."""
        if not texts:
            return np.empty((0, len(self.columns)))
        distinct = list(dict.fromkeys(texts))
        keys = pa.array(list(map(_key, distinct)), pa.binary(16))
        self._look()
        missing = np.flatnonzero(pc.is_null(pc.index_in(keys, value_set=self._known["text"])).to_numpy(False))
        tell(len(texts) - len(missing))
        self._add(keys.take(pa.array(missing)), [distinct[i] for i in missing], tell)
        there = self._known.take(pc.index_in(keys, value_set=self._known["text"]))
        values = np.column_stack([there[name].to_numpy() for name in self.columns])
        row = {text: i for i, text in enumerate(distinct)}
        found: Scores = values[[row[text] for text in texts]]
        return found

    def _add(self, keys: pa.Array, texts: Sequence[str], tell: Callable[[int], None]) -> None:
        """Score texts and keep their numbers: also those that are there when a scorer is interrupted."""
        held: list[pa.Table] = []
        written = time.monotonic()
        try:
            for start in range(0, len(texts), AT_A_TIME):
                some = texts[start : start + AT_A_TIME]
                began = time.monotonic()
                values = self.scorer.score(some)
                self.seconds += time.monotonic() - began
                columns = [keys[start : start + len(some)], *map(pa.array, values.T)]
                held.append(pa.table(columns, schema=self._known.schema))
                self.scored += len(some)
                tell(len(some))
                if time.monotonic() - written > FLUSH_SECONDS:
                    self._keep(held)
                    held, written = [], time.monotonic()
        finally:
            self._keep(held)

    def _keep(self, tables: Sequence[pa.Table]) -> None:
        """Write numbers as a part of their own, or, where many lie side by side, one part for all that is known."""
        if not tables:
            return
        new = pa.concat_tables(tables)
        self._known = pa.concat_tables([self._known, new]).combine_chunks()
        if len(self._read) < MOST_PARTS:
            self._read.add(self._write(new))
            return
        text = self._known["text"]
        replaced, merged = self._read, self._known.take(pc.index_in(text.unique(), value_set=text))
        self._read = {self._write(merged)}
        for part in replaced:  # and none that another process wrote since
            part.unlink(missing_ok=True)

    def _look(self) -> None:
        """Read the parts that are new."""
        tables = [self._known]
        for part in sorted(set(self.folder.glob("part-*.parquet")) - self._read):
            try:
                tables.append(pq.read_table(part, columns=self._known.column_names, partitioning=None))
            except FileNotFoundError:
                continue  # written as one with others meanwhile; what it held is scored again at worst
            except (OSError, pa.ArrowException) as error:
                raise StoreError(
                    f"{part} cannot be read: {error}; move it away and its texts are scored again"
                ) from None
            self._read.add(part)
        if len(tables) > 1:
            self._known = pa.concat_tables(tables).combine_chunks()

    def _write(self, table: pa.Table) -> Path:
        part = self.folder / f"part-{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.parquet"
        aside = part.with_name(f".{part.name}.tmp")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with aside.open("wb") as file:
                pq.write_table(table, file, compression="zstd")
                file.flush()
                os.fsync(file.fileno())
            aside.replace(part)
        except OSError as error:
            raise StoreError(f"cannot write {part}: {error.strerror}") from None
        finally:
            aside.unlink(missing_ok=True)
        return part


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]
