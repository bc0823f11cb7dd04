"""A series: checkpoints in order, chunks of data in order, and what each had been trained on."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from analysis360.digests import digest_of, file_sha256
from analysis360.errors import CheckpointError, DataError, SeriesError
from analysis360.series.exposure import Exposure
from analysis360.series.manifest import Files, Manifest, read_manifest
from analysis360.series.selectors import Selector, select

Role = Literal["train", "held-out", "canary"]
MANIFEST_NAME = "series.toml"
# Keys of config.json that say how a file was made, not what it computes.
VOLATILE_CONFIG = ("transformers_version", "_name_or_path", "torch_dtype", "dtype", "use_cache")


@dataclass(frozen=True)
class Checkpoint:
    """One saved state of the model."""

    name: str
    index: int
    """Position in the series' order."""
    path: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """The model's config.json. Raises CheckpointError."""
        file = self.path / "config.json"
        try:
            loaded = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise CheckpointError(f"checkpoint {self.name}: {file} is missing") from None
        except (OSError, ValueError) as error:
            raise CheckpointError(f"checkpoint {self.name}: {file} cannot be read: {error}") from None
        if not isinstance(loaded, dict) or not isinstance(loaded.get("vocab_size"), int):
            raise CheckpointError(f"checkpoint {self.name}: {file}: expected an object with vocab_size")
        return loaded

    @property
    def vocabulary(self) -> int:
        """Number of ids the model knows."""
        return int(self.config["vocab_size"])

    @property
    def architecture(self) -> dict[str, Any]:
        """The config without what does not change a number."""
        return {key: value for key, value in self.config.items() if key not in VOLATILE_CONFIG}

    @cached_property
    def weight_files(self) -> list[Path]:
        """The shards that hold the weights, safetensors before pickles. Raises CheckpointError."""
        for stem, suffix in (("model", "safetensors"), ("pytorch_model", "bin")):
            single = self.path / f"{stem}.{suffix}"
            if single.exists():  # before an index, as transformers has it
                return [single]
            index = self.path / f"{stem}.{suffix}.index.json"
            if index.exists():
                return self._shards(index)
        raise CheckpointError(
            f"checkpoint {self.name}: no model.safetensors or pytorch_model.bin in {self.path}"
        )

    def _shards(self, index: Path) -> list[Path]:
        where = f"checkpoint {self.name}: {index}"
        try:
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise CheckpointError(f"{where} cannot be read: {error!r}") from None
        if not names:
            raise CheckpointError(f"{where} names no shards")
        for name in names:
            if not isinstance(name, str) or not name or name == ".." or Path(name).name != name:
                raise CheckpointError(f"{where} names {name!r}, which is no file of its folder")
            if not (self.path / name).is_file():
                raise CheckpointError(f"{where}: shard {name} is missing; fetch it again")
        return [self.path / name for name in sorted(names)]

    @cached_property
    def digest(self) -> str:
        """Content identity: digest of the shards' SHA-256 and the config (16 hex digits)."""
        return digest_of([self.architecture, [file_sha256(file) for file in self.weight_files]])


@dataclass(frozen=True)
class Chunk:
    """One file of rows: trained on, held out, or the planted canaries."""

    name: str
    index: int
    """Position among the chunks of its role."""
    path: Path
    role: Role
    fields: tuple[str, ...] = ("token_ids",)
    excluded_source: str | None = None
    """Rows of this source are no text and are not sampled."""

    @cached_property
    def digest(self) -> str:
        """Content identity: digest of the file's SHA-256 and of what is read of it (16 hex digits)."""
        try:
            read = [self.role == "canary", self.excluded_source, self.fields]
            return digest_of([file_sha256(self.path), *read])
        except OSError as error:
            raise DataError(f"chunk {self.name}: {self.path} cannot be read: {error.strerror}") from None


@dataclass(frozen=True)
class Series:
    """An ordered list of checkpoints, an ordered list of chunks, and the exposure between them."""

    name: str
    root: Path
    manifest: Manifest
    checkpoints: tuple[Checkpoint, ...]
    chunks: tuple[Chunk, ...]
    held_out: tuple[Chunk, ...]
    canaries: tuple[Chunk, ...]
    exposure: Exposure

    def select(self, selector: Selector) -> list[Checkpoint]:
        """The selected checkpoints in series order (see `selectors.select`)."""
        return [self.checkpoints[i] for i in select(selector, [c.name for c in self.checkpoints])]

    def select_chunks(self, selector: Selector) -> list[Chunk]:
        """The selected trained chunks in series order; `all` and `seen` select every one."""
        if selector in ("all", "seen"):
            return list(self.chunks)
        return [self.chunks[i] for i in select(selector, [c.name for c in self.chunks], what="chunk")]

    def afresh(self) -> Series:
        """The same series with no digest or config remembered: what is on disk now counts."""
        checkpoints = tuple(replace(checkpoint) for checkpoint in self.checkpoints)
        chunks, held_out, canaries = (
            tuple(replace(chunk) for chunk in role) for role in (self.chunks, self.held_out, self.canaries)
        )
        return replace(self, checkpoints=checkpoints, chunks=chunks, held_out=held_out, canaries=canaries)

    @property
    def controls(self) -> list[Chunk]:
        """Held-out chunks and canaries: scored beside text to tell memory from predictability."""
        return [*self.held_out, *self.canaries]

    @property
    def vocabulary(self) -> int:
        """Number of ids the first checkpoint knows; every other must agree."""
        return self.checkpoints[0].vocabulary

    def __repr__(self) -> str:
        return f"Series({self.name!r}: {len(self.checkpoints)} checkpoints, {len(self.chunks)} chunks, {self.root})"


def open_series(source: str | Path) -> Series:
    """Open a series: a folder that holds series.toml (a trainer's output), or a manifest.

    Raises SeriesError when nothing of that name exists or the manifest is malformed.
    """
    path = Path(source)
    if path.is_dir():
        path = path / MANIFEST_NAME
    if not path.is_file():
        expected = f"expected a folder with {MANIFEST_NAME} or a manifest file"
        raise SeriesError(f"unknown series {str(source)!r}: {expected}")
    return _build(read_manifest(path), path)


def _build(manifest: Manifest, path: Path) -> Series:
    root, schedule = path.parent, manifest.exposure
    excluded = manifest.canaries.source if manifest.canaries else None
    canaries = Files(manifest.canaries.path, 1) if manifest.canaries else None
    checkpoints = [Checkpoint(n, i, root / p) for i, (n, p) in enumerate(manifest.checkpoints.paths())]
    series = Series(
        name=manifest.name,
        root=root,
        manifest=manifest,
        checkpoints=tuple(checkpoints),
        chunks=_chunks(manifest.data, root, "train", excluded),
        held_out=_chunks(manifest.held_out, root, "held-out"),
        canaries=_chunks(canaries, root, "canary"),
        exposure=Exposure(manifest.data.count, schedule.order, schedule.done, schedule.tokens_per_chunk),
    )
    for what, things in (("checkpoints", series.checkpoints), ("chunks", [*series.chunks, *series.controls])):
        _check_names([thing.name for thing in things], what, path)
    return series


def _chunks(files: Files | None, root: Path, role: Role, excluded: str | None = None) -> tuple[Chunk, ...]:
    if files is None:
        return ()
    numbered = enumerate(files.paths())
    return tuple(Chunk(name, i, root / path, role, files.fields, excluded) for i, (name, path) in numbered)


def _check_names(names: list[str], what: str, path: Path) -> None:
    """Results are joined by name, so no two may share one. Raises SeriesError."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise SeriesError(f"{path}: two {what} are called {name!r}; give their files other names")
        seen.add(name)
