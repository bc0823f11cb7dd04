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

AT_A_TIME = 4096
"""Texts scored between two reports of progress."""
MOST_PARTS = 16
"""Parts that lie side by side before they are written as one."""


class Cached:
    """A scorer with a folder."""

    def __init__(self, scorer: Scorer, root: Path) -> None:
        self.scorer = scorer
        self.folder = root / f"scorer={scorer.identity}"
        self.scored = 0
        """Texts that were scored, not found."""
        self._known: pa.Table | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The scorer's."""
        return self.scorer.columns

    def score(self, texts: Sequence[str], tell: Callable[[int], None] = lambda _: None) -> Scores:
        """The numbers of each text; what is new is scored and kept. `tell` hears how many are done."""
        if not texts:
            return np.empty((0, len(self.columns)))
        distinct = list(dict.fromkeys(texts))
        keys = pa.array(list(map(_key, distinct)), pa.binary(16))
        known = self._read()
        places = pc.index_in(keys, value_set=known["text"]).to_numpy(zero_copy_only=False)
        missing = np.flatnonzero(np.isnan(places)) if places.dtype.kind == "f" else np.array([], np.int64)
        if len(missing):
            tell(len(distinct) - len(missing))
            self._add(keys.take(pa.array(missing)), [distinct[i] for i in missing], tell)
            known = self._read()
            places = pc.index_in(keys, value_set=known["text"]).to_numpy()
        else:
            tell(len(distinct))
        values = np.column_stack([known[name].to_numpy() for name in self.columns])[places.astype(np.int64)]
        row = {text: i for i, text in enumerate(distinct)}
        found: Scores = values[[row[text] for text in texts]]
        return found

    def _add(self, keys: pa.Array, texts: Sequence[str], tell: Callable[[int], None]) -> None:
        parts = []
        for start in range(0, len(texts), AT_A_TIME):
            some = texts[start : start + AT_A_TIME]
            parts.append(self.scorer.score(some))
            tell(len(some))
        values = np.concatenate(parts)
        self.scored += len(texts)
        columns = {name: pa.array(values[:, i]) for i, name in enumerate(self.columns)}
        new = pa.table({"text": keys, **columns})
        replaced = self._parts()
        if len(replaced) >= MOST_PARTS:
            new = pa.concat_tables([self._read(), new])
        self._write(new)
        for part in replaced if len(replaced) >= MOST_PARTS else []:
            part.unlink(missing_ok=True)
        self._known = None

    def _parts(self) -> list[Path]:
        return sorted(self.folder.glob("part-*.parquet"))

    def _read(self) -> pa.Table:
        """Everything known, each text once; read again when something was added."""
        if self._known is None:
            names = ["text", *self.columns]
            types = [pa.binary(16), *[pa.float64()] * len(self.columns)]
            tables = [pa.schema(list(zip(names, types, strict=True))).empty_table()]
            for part in self._parts():
                try:
                    tables.append(pq.read_table(part, columns=names, partitioning=None))
                except FileNotFoundError:
                    continue  # written as one with others meanwhile; what it held is scored again at worst
                except (OSError, pa.ArrowException) as error:
                    raise StoreError(
                        f"{part} cannot be read: {error}; move it away and its texts are scored again"
                    ) from None
            self._known = pa.concat_tables(tables).combine_chunks()
        return self._known

    def _write(self, table: pa.Table) -> None:
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


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]
