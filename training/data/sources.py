"""Bodies of text, built in or in files, as documents that can be read in any order.

Text in files is never in memory as a whole. Of each document 24 bytes are: where it is, and eight bytes of
its SHA-256, which decide whether it is held out and find exact copies. A copy within a source is left out,
so that a document counts once, however often it was collected. Two of a billion different documents share
those eight bytes with a probability of 3 %; one of them would be left out.
"""

import glob
import hashlib
import json
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow
from pyarrow import parquet
from tqdm import tqdm

from training.config import Source
from training.data.built_in import BUILT_IN, built_in
from training.data.rows import Digests
from training.errors import TrainingError

__all__ = ["BUILT_IN", "Documents", "checked_sha256", "open_source"]

KINDS = (".txt", ".jsonl", ".parquet")


class Documents(Protocol):
    """The documents of a source, each text once, by number."""

    digests: Digests
    """The first eight bytes of each text's SHA-256."""

    def __len__(self) -> int: ...

    def text(self, index: int) -> str:
        """The text of a document."""
        ...

    def label(self, index: int) -> str:
        """Where it is from, for a person to find."""
        ...


def open_source(source: Source, longest: int, scratch: Path) -> Documents:
    """The documents of a source, cut to `longest` characters. Parquet is unpacked below `scratch`."""
    if not source.files:
        return _Listed(built_in(source.name, longest))
    paths = map(Path, glob.glob(source.files, recursive=True))  # noqa: PTH207 - the pattern may be absolute
    files = sorted(path for path in paths if path.is_file())
    if not files:
        fix = "mend Source.files; it is taken from the working directory"
        raise TrainingError(source.name, expected=f"files like {source.files}", found="none", fix=fix)
    return _InFiles(source, files, longest, scratch)


def checked_sha256(documents: Documents, index: int, text: str) -> str:
    """The SHA-256 of a document's text, which has to be what it was when the source was opened."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    if int(digest[:16], 16) != documents.digests[index]:
        where, fix = documents.label(index), "leave the text alone and prepare again"
        raise TrainingError(where, expected="the text that was there a while ago", found="another", fix=fix)
    return digest


def _digest(text: str) -> int:
    """The first eight bytes of a text's SHA-256 as a number."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


class _Listed:
    """Documents in memory."""

    def __init__(self, documents: list[tuple[str, str]]) -> None:
        self._documents = documents
        digests = [_digest(text) for _, text in documents]
        self.digests: Digests = np.array(digests, dtype=np.uint64)

    def __len__(self) -> int:
        return len(self._documents)

    def text(self, index: int) -> str:
        return self._documents[index][1]

    def label(self, index: int) -> str:
        return self._documents[index][0]


class _InFiles:
    """Documents in files, by an index: the file, the place in it, and the digest of each."""

    def __init__(self, source: Source, files: list[Path], longest: int, scratch: Path) -> None:
        self._source, self._files, self._longest = source, files, longest
        self._unpacked = [scratch / f"{source.name}-{index}.jsonl" for index in range(len(files))]
        places, rows, digests = array("q"), array("q"), array("Q")
        firsts = []  # number of each file's first document, copies counted
        for number, path in enumerate(tqdm(files, desc=f"reading {source.name}", unit="file", disable=None)):
            firsts.append(len(digests))
            for place, row, text in self._read(number, path):
                places.append(place)
                rows.append(row)
                digests.append(_digest(text[:longest]))
        everything = np.frombuffer(digests, dtype=np.uint64)
        kept = np.sort(np.unique(everything, return_index=True)[1])
        self.digests: Digests = everything[kept]
        self._places = np.frombuffer(places, dtype=np.int64)[kept]
        self._rows = np.frombuffer(rows, dtype=np.int64)[kept]
        self._firsts = np.searchsorted(kept, firsts).tolist()

    def __len__(self) -> int:
        return len(self.digests)

    def text(self, index: int) -> str:
        number = bisect_right(self._firsts, index) - 1
        path, place = self._files[number], int(self._places[index])
        if path.suffix == ".txt":
            return _decoded(path.read_bytes(), str(path))[: self._longest]
        if path.suffix == ".parquet":
            with self._unpacked[number].open("rb") as file:
                file.seek(place)
                return str(json.loads(file.readline()))
        with path.open("rb") as file:
            file.seek(place)
            return _field(file.readline(), self._source.field, f"{path}:byte {place}")[: self._longest]

    def label(self, index: int) -> str:
        path = self._files[bisect_right(self._firsts, index) - 1]
        if path.suffix == ".txt":
            return str(path)
        if path.suffix == ".parquet":
            return f"{path}:row {self._rows[index]}"
        return f"{path}:byte {self._places[index]}"

    def _read(self, number: int, path: Path) -> Iterator[tuple[int, int, str]]:
        """(place, row, text) of each document of a file, copies too."""
        if path.suffix == ".txt":
            yield 0, 0, _decoded(path.read_bytes(), str(path))
        elif path.suffix == ".jsonl":
            yield from _json_lines(path, self._source.field)
        elif path.suffix == ".parquet":
            yield from _unpack(path, self._source.field, self._longest, self._unpacked[number])
        else:
            fix = "convert it, or narrow Source.files"
            raise TrainingError(path, expected=" or ".join(KINDS), found=path.suffix or "no suffix", fix=fix)


def _json_lines(path: Path, field: str) -> Iterator[tuple[int, int, str]]:
    with path.open("rb") as file:
        place = 0
        for row, line in enumerate(file):
            if line.strip():
                yield place, row, _field(line, field, f"{path}, line {row + 1}")
            place += len(line)


def _field(line: bytes, field: str, where: str) -> str:
    """The text in a line of JSON."""
    text = _decoded(line, where)
    fix = "mend the file, or name another Source.field"
    try:
        row: Any = json.loads(text)
    except ValueError:
        raise TrainingError(where, expected="a line of JSON", found=f"{text[:20]!r}", fix=fix) from None
    if not isinstance(row, dict) or not isinstance(row.get(field), str):
        found = ", ".join(row) if isinstance(row, dict) else type(row).__name__
        found = f"no text in it ({found})" if isinstance(row, dict) and field in row else found
        raise TrainingError(where, expected=f"a field {field!r} of text", found=found or "none", fix=fix)
    return _encodable(row[field], where)


def _decoded(data: bytes, where: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        found, fix = f"byte {data[error.start]:#04x} at {error.start}", "convert it to UTF-8"
        raise TrainingError(where, expected="UTF-8", found=found, fix=fix) from None


def _encodable(text: str, where: str) -> str:
    """JSON may spell half of a character pair, which is no text."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        found, fix = f"a lone surrogate at character {error.start}", "mend the text"
        raise TrainingError(where, expected="text", found=found, fix=fix) from None
    return text


def _unpack(path: Path, field: str, longest: int, unpacked: Path) -> Iterator[tuple[int, int, str]]:
    """Parquet's texts as lines of JSON: a column can be read forwards, not here and there."""
    fix = "mend the file, or name another Source.field"
    try:
        table = parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
    except pyarrow.ArrowInvalid:
        raise TrainingError(path, expected="a Parquet file", found="none", fix=fix) from None
    if field not in table.schema_arrow.names:
        found = ", ".join(table.schema_arrow.names)
        raise TrainingError(path, expected=f"a column {field!r} of text", found=found, fix=fix)
    row = 0
    with unpacked.open("wb") as file:
        for batch in table.iter_batches(batch_size=256, columns=[field], use_threads=False):
            for text in batch.column(0).to_pylist():
                if not isinstance(text, str):
                    found = type(text).__name__
                    raise TrainingError(f"{path}, row {row}", expected="text", found=found, fix=fix)
                yield file.tell(), row, text
                file.write(json.dumps(text[:longest]).encode() + b"\n")
                row += 1
