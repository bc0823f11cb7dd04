"""Corpora: text in documents, out of files or data sets, from the Hub or a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from analysis360.errors import DataError, EngineError, SelectionError

UNKNOWN = "unknown"
INSTALL = "data sets need the package datasets: pip install 'analysis360[leaderboard]'"


class Document(NamedTuple):
    """Text that is read from its beginning; nothing of another document is before it."""

    text: str
    source: str = UNKNOWN


@dataclass(frozen=True)
class Corpus:
    """Documents in order."""

    name: str
    where: str
    """Where they come from, for messages."""
    documents: Sequence[Document]

    @cached_property
    def digest(self) -> str:
        """Content identity: of texts and sources. Raises DataError for text that no bytes stand for."""
        found = hashlib.sha256()
        for number, document in enumerate(self.documents):
            try:
                found.update(json.dumps(list(document), ensure_ascii=False).encode() + b"\n")
            except UnicodeEncodeError:
                raise DataError(f"{self.where}: document {number} holds a lone surrogate") from None
        return found.hexdigest()[:16]


def read_files(paths: Iterable[str | Path], *, lines: bool = False, field: str = "text") -> list[Corpus]:
    """A corpus a file. Of `.jsonl` each line is a document, {field: text, "source": name}; other files are text.

    A text file is one document; with `lines`, each line that is not blank is one. Raises SelectionError for two
    files of one name, DataError for what cannot be read.
    """
    found = [_read_file(Path(path), lines, field) for path in paths]
    names = [corpus.name for corpus in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SelectionError(f"text: two files are called {', '.join(twice)}; rename one of them")
    return found


def _read_file(path: Path, lines: bool, field: str) -> Corpus:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected UTF-8, found another byte at {error.start}") from None
    if path.suffix == ".jsonl":
        records = [(f"{path} line {i}", line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
        documents = [_document(_record(line, where), field, where) for where, line in records]
    elif lines:
        documents = [
            Document(line.removesuffix("\r"), path.stem) for line in text.split("\n") if line.strip()
        ]
    else:
        documents = [Document(text, path.stem)]
    return Corpus(path.stem, str(path), documents)


def _record(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        raise DataError(f"{where}: expected a JSON object, found {line[:60]!r}") from None


def _document(record: Any, field: str, where: str) -> Document:
    text = record.get(field) if isinstance(record, dict) else None
    if not isinstance(text, str):
        held = ", ".join(record) if isinstance(record, dict) else type(record).__name__
        raise DataError(
            f"{where}: expected text in the field {field!r}, found {held}; give --field, or `field` in a task file"
        )
    return Document(text, str(record.get("source") or UNKNOWN))


def read_dataset(name: str, *, split: str = "test", field: str = "text") -> Corpus:
    """A document a record of a data set: `name` or `name:configuration` on the Hub, or a folder of its files.

    Raises DataError where it cannot be had, EngineError where the package that reads it is not installed.
    """
    where = f"data set {name}, split {split}"
    documents = _documents(_loaded(name, split), field, where)
    path, _, configuration = name.rstrip("/").partition(":")
    return Corpus("-".join(filter(None, [Path(path).name, configuration, split])), where, documents)


def read_sets(name: str, *, field: str = "text") -> list[Corpus]:
    """A corpus a split of a data set on the Hub; or a file, or each of a folder, of text files a document a line.

    Raises as `read_dataset` does.
    """
    if Path(name).is_dir():
        files = sorted(path for path in Path(name).iterdir() if path.suffix in (".jsonl", ".txt"))
        if not files:
            raise DataError(f"{name}: expected files of .jsonl or .txt, found none")
        return read_files(files, lines=True, field=field)
    if Path(name).is_file():
        return read_files([name], lines=True, field=field)
    return [
        Corpus(split, f"data set {name}", _documents(records, field, f"data set {name}, split {split}"))
        for split, records in _loaded(name, None).items()
    ]


def _documents(records: Iterable[Any], field: str, where: str) -> list[Document]:
    return [_document(record, field, f"{where}, record {i}") for i, record in enumerate(records)]


def _loaded(name: str, split: str | None) -> Any:
    """The records of a split of a data set; of all splits, by name, where None is asked."""
    try:
        import datasets
    except ImportError:
        raise EngineError(INSTALL) from None
    path, _, configuration = name.partition(":")
    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(path, configuration or None, split=split)
    except Exception as error:  # of whatever reads it: the Hub, a file, a loader
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        which = f", split {split}" if split else ""
        raise DataError(f"data set {name}{which}: it cannot be loaded: {reason}") from None
