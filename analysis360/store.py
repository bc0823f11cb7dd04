"""The result tables: Parquet parts that are complete when they exist, keyed by content.

    RESULTS/<series>/panels/<chunk>-<key>.parquet
    RESULTS/<series>/<task>/settings=<digest>/_settings.json
    RESULTS/<series>/<task>/settings=<digest>/ckpt=<name>/part-<unique>.parquet

A part holds many units, a row group a unit; its footer lists them with their provenance. Nothing
locks: writers use unique names, readers drop what is there twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from analysis360.digests import digest_of
from analysis360.errors import DataError, StoreError
from analysis360.panel import SAMPLER, Panel
from analysis360.parts import FOOTER, Rows, StoredUnit, gaps, units_of
from analysis360.series import Chunk
from analysis360.tasks import Key, Task, Unit

FLUSH_SECONDS = 20.0


class Stored(Protocol):
    """What the store has to know of a task to find its results."""

    @property
    def name(self) -> str:
        """Of the task."""

    @property
    def schema_version(self) -> str:
        """Of its rows."""

    def settings(self) -> dict[str, Any]:
        """Everything that changes a number (see `Task.settings`)."""


class Store:
    """Results of one series below `root`/<series>."""

    def __init__(self, root: str | Path, series: str) -> None:
        self.series = series
        self.path = Path(root) / series
        self._footers: dict[Path, tuple[tuple[int, int], list[StoredUnit]]] = {}

    def prepare(self) -> None:
        """Make the folder and prove that it can be written. Raises StoreError."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / f".probe-{uuid.uuid4().hex}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise StoreError(
                f"results folder {self.path} is not writable: {error.strerror}; choose another --out"
            ) from None

    def folder(self, task: str, settings: dict[str, Any]) -> Path:
        """Where results of a task under its settings live."""
        return self.path / task / f"settings={digest_of(settings)}"

    def settings(self, task: str) -> list[dict[str, Any]]:
        """Every set of settings under which something of a task is stored."""
        found = []
        for file in sorted((self.path / task).glob("settings=*/_settings.json")):
            with contextlib.suppress(OSError, ValueError):
                if any(file.parent.glob("ckpt=*/part-*.parquet")):
                    found.append(json.loads(file.read_text()))
        return found

    def panel(
        self,
        chunk: Chunk,
        draw: Callable[[int], Panel],
        *,
        n: int,
        width: int,
        seed: int,
        eos: int | None,
        keep: bool = True,
    ) -> Panel:
        """The stored panel of a chunk, drawn anew, and kept, when there is none or it is too small."""
        key = digest_of([SAMPLER, chunk.digest, seed, width, eos])
        file = self.path / "panels" / f"{chunk.name}-{key}.parquet"
        if file.exists():
            stored, asked = _read_panel(file)
            if asked >= n:
                return stored if chunk.role == "canary" else stored.head(n)
        panel = draw(n)
        if replace(chunk).digest != chunk.digest:
            raise DataError(f"{chunk.where} changed while it was read; run again")
        if keep:
            _write(
                file,
                [_panel_table(panel)],
                {"asked": n, "chunk": chunk.name, "chunk_digest": chunk.digest, **chunk.place.describe()},
            )
        return panel

    def stored(self, task: Stored) -> list[StoredUnit]:
        """Every unit in the store under the task's settings, oldest part first, whatever its names."""
        parts = sorted(self.folder(task.name, task.settings()).glob("ckpt=*/part-*.parquet"))
        return [unit for part in parts for unit in self._units_of(part, task.schema_version)]

    def _units_of(self, part: Path, schema_version: str) -> list[StoredUnit]:
        """The units a part holds; a footer is parsed once, for a part that exists does not change."""
        try:
            status = part.stat()
        except FileNotFoundError:  # replaced by a larger part since it was listed
            return []
        stamp = (status.st_size, status.st_mtime_ns)
        if part not in self._footers or self._footers[part][0] != stamp:
            self._footers[part] = (stamp, units_of(part, schema_version))
        return self._footers[part][1]

    def tidy(self, task: Task) -> None:
        """Remove parts whose every unit a later part of the same checkpoint holds: what a kill can leave."""
        parts: dict[Path, set[tuple[Key, int, int]]] = {}
        for unit in self.stored(task):
            parts.setdefault(unit.part, set()).add((unit.key, unit.start, unit.stop))
        ordered = sorted(parts)
        for i, part in enumerate(ordered):
            if any(parts[part] <= parts[later] and later.parent == part.parent for later in ordered[i + 1 :]):
                part.unlink(missing_ok=True)

    def missing(self, task: Task) -> list[Unit]:
        """The asked units less what is stored: whole units, or the positions still to do.

        Content decides: of checkpoints or chunks that are equal under two names, one is computed.
        """
        have: dict[Key, list[tuple[int, int]]] = {}
        for stored in self.stored(task):
            have.setdefault(stored.key, []).append((stored.start, stored.stop))
        left: list[Unit] = []
        for unit in task.units():
            covered = have.setdefault(unit.key, [])
            for start, stop in gaps(unit.start, unit.stop, covered):
                left.append(replace(unit, start=start, stop=stop))
                covered.append((start, stop))
        return left

    def read(self, task: Task) -> Rows:
        """Every stored row the task asks for, each once; `unit` counts its `task.units()`."""
        return Rows(task.units(), lambda: self.stored(task))

    def writer(self, task: Task, checkpoint: str, provenance: dict[str, Any]) -> Writer:
        """Collects the units of one checkpoint; close it, and what was finished is kept."""
        folder = self.folder(task.name, task.settings())
        _write_settings(folder / "_settings.json", task.settings())
        return Writer(folder / f"ckpt={checkpoint}", self.series, task.schema_version, provenance)


class Writer:
    """Writes a part every FLUSH_SECONDS and leaves one part when it is closed."""

    def __init__(self, folder: Path, series: str, schema_version: str, provenance: dict[str, Any]) -> None:
        self._folder, self._series = folder, series
        self._footer = {"schema": schema_version, **provenance}
        self._tables: list[pa.Table] = []
        self._units: list[dict[str, Any]] = []
        self._interim: Path | None = None
        self._written, self._last = 0, time.monotonic()

    def add(self, unit: Unit, table: pa.Table, seconds: float) -> None:
        """Take the finished table of a unit."""
        names = {"series": self._series, "chunk": unit.chunk.name}
        digests = {"ckpt_digest": unit.key.ckpt_digest, "chunk_digest": unit.key.chunk_digest}
        for name, value in {**names, **digests}.items():
            column = pa.DictionaryArray.from_arrays(
                pa.array(np.zeros(len(table), np.int32)), pa.array([value])
            )
            table = table.append_column(name, column)
        self._tables.append(table)
        entry = {
            "chunk": unit.chunk.name,
            "start": unit.start,
            "stop": unit.stop,
            "seconds": round(seconds, 4),
        }
        self._units.append({**entry, **digests})
        if time.monotonic() - self._last > FLUSH_SECONDS:
            self._flush()

    def close(self) -> None:
        """Write what is not yet on disk, all of it in one part."""
        self._flush()

    def _flush(self) -> None:
        """Write all units so far as one part, then drop the smaller part it replaces."""
        if len(self._units) > self._written:
            part = self._folder / f"part-{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.parquet"
            _write(part, self._tables, {**self._footer, "units": self._units})
            if self._interim is not None:
                self._interim.unlink(missing_ok=True)
            self._interim, self._written = part, len(self._units)
        self._last = time.monotonic()


def _panel_table(panel: Panel) -> pa.Table:
    ids = pa.FixedSizeListArray.from_arrays(pa.array(panel.ids.reshape(-1)), panel.ids.shape[1])
    sources = pa.array(panel.sources.tolist(), pa.string()).dictionary_encode()
    columns = {"row": pa.array(panel.rows), "source": sources, "first_eos": pa.array(panel.first_eos)}
    return pa.table(
        {"position": pa.array(np.arange(len(panel), dtype=np.int32)), **columns, "token_ids": ids}
    )


def _read_panel(file: Path) -> tuple[Panel, int]:
    try:
        with pq.ParquetFile(file, pre_buffer=False) as opened:
            table = opened.read(use_threads=False)
        asked = json.loads(table.schema.metadata[FOOTER])["asked"]
        width = table.schema.field("token_ids").type.list_size
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise StoreError(f"{file} is not a panel: {error}; move it away and it is drawn again") from None
    ids = table["token_ids"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    columns = {name: table[name].to_numpy() for name in ("row", "first_eos")}
    sources = table["source"].unify_dictionaries().combine_chunks().dictionary_encode()
    names = np.array(sources.dictionary.to_pylist(), dtype=np.str_)
    return Panel(
        ids.reshape(len(table), width).astype(np.int32, copy=False),
        columns["row"],
        names[sources.indices.to_numpy()],
        columns["first_eos"],
    ), asked


def _write(path: Path, tables: Sequence[pa.Table], footer: dict[str, Any]) -> None:
    """Write a Parquet file aside, flush it to disk, and rename it: a file that exists is complete."""
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {FOOTER: json.dumps(footer, sort_keys=True).encode()}
        schema = tables[0].schema.with_metadata(metadata)
        with aside.open("wb") as file:
            with pq.ParquetWriter(file, schema, compression="zstd") as writer:
                for table in tables:
                    writer.write_table(
                        table.replace_schema_metadata(metadata), row_group_size=max(len(table), 1)
                    )
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}") from None
    finally:
        aside.unlink(missing_ok=True)


def _write_settings(path: Path, settings: dict[str, Any]) -> None:
    if path.exists():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
        aside.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
        aside.replace(path)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}") from None
