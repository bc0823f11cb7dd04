"""The manifest of a series: one TOML file, read into frozen records and rejected by name."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from analysis360.errors import SeriesError

VERSION = 1
DTYPES = ("float32", "bfloat16", "float16")
SPACINGS = ("even", "chunk", "never")
UNKNOWN = "unknown"
NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
INDEX = re.compile(r"\{index(?::0\d+d)?\}")
Record = TypeVar("Record")


@dataclass(frozen=True)
class Model:
    """What every checkpoint of the series shares."""

    compute_dtype: str = "float32"
    """Dtype that scores are computed in; one a sweep, whatever the files store."""
    eos_token_id: int | None = None
    """Id that ends a document."""
    pad_token_id: int | None = None
    """Id that published pipelines pad with after EOS; EOS itself when absent."""


@dataclass(frozen=True)
class Files:
    """A numbered list of files or folders, relative to the manifest."""

    path: str
    """Pattern with one `{index}` field, such as `train/train_{index:03d}.jsonl`."""
    count: int
    first: int = 0
    format: str = "jsonl"
    fields: tuple[str, ...] = ("token_ids",)
    """Fields of a row that hold ids; several are joined in this order."""
    rows: int | None = None
    """Rows a file, when the release says so."""
    row_tokens: int | None = None
    """Ids a row, when the release says so."""

    def paths(self) -> list[tuple[str, str]]:
        """(name, relative path) of each, in order. The name is that of the file or folder with the index."""
        parts = PurePosixPath(self.path).parts
        numbered = next((part for part in reversed(parts) if "{" in part), parts[-1])
        stem = numbered.removesuffix(PurePosixPath(numbered).suffix) if numbered == parts[-1] else numbered
        indices = range(self.first, self.first + self.count)
        return [(stem.format(index=index), self.path.format(index=index)) for index in indices]


@dataclass(frozen=True)
class Canary:
    """One planted row of random ids and where it was planted."""

    row: int
    """Row in the canary file."""
    repeats: int
    """Times it was planted in all; 0 for a control that never was."""
    spacing: str
    """`even` over training, within one `chunk`, or `never`."""
    planted: tuple[tuple[int, int], ...] = ()
    """[chunk, row] of each planting."""


@dataclass(frozen=True)
class Canaries:
    """Planted rows of known repetition, kept apart from text."""

    path: str
    source: str = "canary"
    """Rows of the training chunks with this source are canaries and are left out of text results."""
    ordinary_ids: int | None = None
    """Number of ids that canaries are drawn from, evenly: chance is one over it."""
    rows: tuple[Canary, ...] = ()


@dataclass(frozen=True)
class Schedule:
    """The order in which chunks were trained on (see `Exposure`)."""

    order: tuple[int | None, ...] = ()
    done: tuple[int, ...] | None = None
    tokens_per_chunk: int | None = None


@dataclass(frozen=True)
class Manifest:
    """A series as its TOML file describes it."""

    name: str
    checkpoints: Files
    data: Files
    model: Model = field(default_factory=Model)
    held_out: Files | None = None
    canaries: Canaries | None = None
    exposure: Schedule = field(default_factory=Schedule)
    metrics: str | None = None
    """JSON lines of the training run, for the loss curve."""
    tokenizer: str | None = None


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest. Raises SeriesError naming the file and the key."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SeriesError(f"{path}: not a readable manifest: {error}") from None
    version = raw.pop("manifest", None)
    if version != VERSION:
        raise SeriesError(f"{path}: expected `manifest = {VERSION}`, found {version!r}")
    return _manifest(raw, path)


def _manifest(raw: dict[str, Any], path: Path) -> Manifest:
    sections: dict[str, type] = {"checkpoints": Files, "data": Files, "model": Model, "held_out": Files}
    sections |= {"canaries": Canaries, "exposure": Schedule}
    canaries = raw.get("canaries")
    if isinstance(canaries, dict) and isinstance(canaries.get("rows"), list):
        rows = [_record(Canary, row, f"{path} [[canaries.rows]]") for row in canaries["rows"]]
        raw = raw | {"canaries": canaries | {"rows": rows}}
    parsed: dict[str, Any] = {
        key: _record(kind, raw[key], f"{path} [{key}]") for key, kind in sections.items() if key in raw
    }
    manifest = _record(Manifest, raw | parsed, str(path))
    _check(manifest, path)
    return manifest


def _record(kind: type[Record], raw: Any, where: str) -> Record:
    if not isinstance(raw, dict):
        raise SeriesError(f"{where}: expected a table, found {raw!r}")
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in raw.keys() - fields.keys():
        raise SeriesError(f"{where}: unknown key {key!r}; expected one of {', '.join(fields)}")
    hints = get_type_hints(kind)
    values = {key: _tuples(value) for key, value in raw.items()}
    for name, entry in fields.items():
        required = entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
        if name not in values:
            if required:
                raise SeriesError(f"{where}: key {name!r} is missing")
        elif not _fits(values[name], hints[name]):
            raise SeriesError(f"{where}: key {name!r}: expected {entry.type}, found {raw[name]!r}")
    return kind(**values)


def _tuples(value: Any) -> Any:
    """TOML lists as tuples; TOML has no null, so the word `unknown` stands for it in lists."""
    return (
        tuple(None if item == UNKNOWN else _tuples(item) for item in value)
        if isinstance(value, list)
        else value
    )


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotated type: str, int, None, records, unions and tuples of them."""
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, choice) for choice in get_args(hint))
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        if not isinstance(value, tuple):
            return False
        if kinds[-1] is Ellipsis:
            return all(_fits(item, kinds[0]) for item in value)
        return len(value) == len(kinds) and all(map(_fits, value, kinds))
    return type(value) is hint  # an exact match: a truth value is no integer


def _check(manifest: Manifest, path: Path) -> None:
    if not NAME.fullmatch(manifest.name):
        raise SeriesError(
            f"{path}: key 'name': expected letters, digits, '.', '_' and '-', found {manifest.name!r}"
        )
    if manifest.model.compute_dtype not in DTYPES:
        found = manifest.model.compute_dtype
        raise SeriesError(f"{path} [model]: compute_dtype {found!r}; expected one of {', '.join(DTYPES)}")
    if not manifest.checkpoints.count:
        raise SeriesError(f"{path} [checkpoints]: count is 0: there are no checkpoints; train some first")
    if not manifest.data.count:
        raise SeriesError(f"{path} [data]: count is 0: there is nothing to score")
    for section in ("checkpoints", "data", "held_out"):
        files: Files | None = getattr(manifest, section)
        if files is not None:
            _check_files(files, f"{path} [{section}]")
    for key in ("metrics", "tokenizer"):
        _check_inside(getattr(manifest, key) or "", f"{path}: key {key!r}")
    if manifest.canaries is not None:
        _check_canaries(manifest.canaries, manifest.data.count, f"{path} [canaries]")
    _check_schedule(manifest, f"{path} [exposure]")


def _check_schedule(manifest: Manifest, where: str) -> None:
    order, done = manifest.exposure.order, manifest.exposure.done
    if done is not None:
        if len(done) != manifest.checkpoints.count:
            expected = f"the series has {manifest.checkpoints.count} checkpoints"
            raise SeriesError(f"{where}: `done` has {len(done)} entries; {expected}")
        for positions in done:
            if not 0 <= positions <= len(order):
                raise SeriesError(f"{where}: `done` holds {positions}; `order` has {len(order)} positions")
    for chunk in order:
        if chunk is not None and not 0 <= chunk < manifest.data.count:
            raise SeriesError(f"{where}: chunk {chunk} in `order`; the series has {manifest.data.count}")


def _check_files(files: Files, where: str) -> None:
    if files.count < 0 or files.first < 0:
        raise SeriesError(
            f"{where}: expected first and count of 0 or more, found {files.first} and {files.count}"
        )
    if files.format != "jsonl":
        raise SeriesError(f"{where}: format {files.format!r}; expected jsonl")
    if not files.fields:
        raise SeriesError(f"{where}: fields is empty; expected the fields of a row that hold ids")
    _check_pattern(files.path, where)
    if files.count > 1 and "{" not in files.path:
        raise SeriesError(f"{where}: path {files.path!r} has no {{index}} field but count = {files.count}")


def _check_canaries(canaries: Canaries, chunks: int, where: str) -> None:
    _check_pattern(canaries.path, where)
    for canary in canaries.rows:
        if canary.spacing not in SPACINGS:
            raise SeriesError(f"{where}: spacing {canary.spacing!r}; expected one of {', '.join(SPACINGS)}")
        if len(canary.planted) != canary.repeats:
            found = f"{len(canary.planted)} plantings of row {canary.row}"
            raise SeriesError(f"{where}: {found} are listed; repeats = {canary.repeats}")
        for chunk, _ in canary.planted:
            if not 0 <= chunk < chunks:
                raise SeriesError(
                    f"{where}: row {canary.row} is planted in chunk {chunk}; the series has {chunks}"
                )


def _check_pattern(pattern: str, where: str) -> None:
    _check_inside(pattern, f"{where}: path")
    if len(INDEX.findall(pattern)) > 1 or set(INDEX.sub("", pattern)) & set("{}"):
        raise SeriesError(f"{where}: path {pattern!r}; expected one {{index}} or {{index:03d}} field")


def _check_inside(path: str, where: str) -> None:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts:
        raise SeriesError(f"{where}: {path!r} leaves the folder of the series")
