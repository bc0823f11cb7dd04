"""The manifest of a series: one TOML file, read into frozen records and rejected by name."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from analysis360.errors import SeriesError

VERSION = 1
DTYPES = ("float32", "bfloat16", "float16")
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

    def paths(self) -> list[str]:
        """The relative paths, in order."""
        return [self.path.format(index=index) for index in range(self.first, self.first + self.count)]


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
    for key in ("canaries",):
        if key in raw and "rows" in raw[key]:
            rows = [_record(Canary, row, f"{path} [[canaries.rows]]") for row in raw[key]["rows"]]
            raw[key] = raw[key] | {"rows": rows}
    parsed: dict[str, Any] = {
        key: _record(kind, raw[key], f"{path} [{key}]") for key, kind in sections.items() if key in raw
    }
    manifest = _record(Manifest, raw | parsed, str(path))
    _check(manifest, path)
    return manifest


def _record(kind: type[Record], raw: dict[str, Any], where: str) -> Record:
    if not isinstance(raw, dict):
        raise SeriesError(f"{where}: expected a table, found {raw!r}")
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in raw.keys() - fields.keys():
        raise SeriesError(f"{where}: unknown key {key!r}; expected one of {', '.join(fields)}")
    for name, entry in fields.items():
        required = entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
        if required and name not in raw:
            raise SeriesError(f"{where}: key {name!r} is missing")
    return kind(**{key: _tuples(value) for key, value in raw.items()})


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _check(manifest: Manifest, path: Path) -> None:
    if manifest.model.compute_dtype not in DTYPES:
        found = manifest.model.compute_dtype
        raise SeriesError(f"{path}: compute_dtype {found!r}; expected one of {', '.join(DTYPES)}")
    for files in (manifest.checkpoints, manifest.data, manifest.held_out):
        if files is not None:
            _check_files(files, path)
    done = manifest.exposure.done
    if done is not None and len(done) != manifest.checkpoints.count:
        raise SeriesError(
            f"{path} [exposure]: `done` has {len(done)} entries; "
            f"the series has {manifest.checkpoints.count} checkpoints"
        )
    for chunk in manifest.exposure.order:
        if chunk is not None and not 0 <= chunk < manifest.data.count:
            raise SeriesError(
                f"{path} [exposure]: chunk {chunk} in `order`; the series has {manifest.data.count}"
            )


def _check_files(files: Files, path: Path) -> None:
    try:
        names = files.paths()
    except (KeyError, IndexError, ValueError):
        raise SeriesError(f"{path}: pattern {files.path!r}; expected one {{index}} field") from None
    for name in names[:1]:
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts:
            raise SeriesError(f"{path}: pattern {files.path!r} leaves the folder of the series")
    if len(set(names)) != len(names):
        raise SeriesError(f"{path}: pattern {files.path!r} has no {{index}} field but count = {files.count}")
