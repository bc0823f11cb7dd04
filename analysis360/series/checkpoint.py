"""A checkpoint: one saved state of the model, wherever its files are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from analysis360.digests import digest_of
from analysis360.errors import CheckpointError, MissingError
from analysis360.places import Place

# Keys of config.json that say how a file was made, not what it computes.
VOLATILE_CONFIG = ("transformers_version", "_name_or_path", "torch_dtype", "dtype", "use_cache")
CONFIG = "config.json"
WEIGHTS = (("model", "safetensors"), ("pytorch_model", "bin"))
"""Stem and suffix of weight files, safetensors before pickles."""


@dataclass(frozen=True)
class Checkpoint:
    """One saved state of the model."""

    name: str
    index: int
    """Position in the series' order."""
    place: Place
    labels: Mapping[str, int] = field(default_factory=dict)
    """What its branch says of it: index, step, tokens."""
    trusted: bool = False
    """Whether code that the checkpoint brings may be run: only where the user asked for it by name."""

    @property
    def path(self) -> Path:
        """The folder that engines load, once the checkpoint was fetched."""
        return self.place.path

    @cached_property
    def config(self) -> dict[str, Any]:
        """The model's config.json. Raises CheckpointError."""
        where = f"checkpoint {self.name}: {self.place.where}/{CONFIG}"
        try:
            loaded = json.loads(self.place.read(CONFIG))
        except (FileNotFoundError, MissingError) as error:
            why = f" ({error})" if isinstance(error, MissingError) else ""
            raise CheckpointError(f"{where} is missing{why}") from None
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError(f"{where} cannot be read: {error}") from None
        if not isinstance(loaded, dict) or not isinstance(loaded.get("vocab_size"), int):
            raise CheckpointError(f"{where}: expected an object with vocab_size")
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
    def weights(self) -> list[str]:
        """Names of the shards that hold the weights, safetensors before pickles. Raises CheckpointError."""
        there = set(self._names)
        for stem, suffix in WEIGHTS:
            single, index = f"{stem}.{suffix}", f"{stem}.{suffix}.index.json"
            if single in there:  # before an index, as transformers has it
                return [single]
            if index in there:
                return self._shards(index, there)
        raise CheckpointError(
            f"checkpoint {self.name}: no model.safetensors or pytorch_model.bin in {self.place.where}"
        )

    def _shards(self, index: str, there: set[str]) -> list[str]:
        where = f"checkpoint {self.name}: {self.place.where}/{index}"
        try:
            names = set(json.loads(self.place.read(index))["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise CheckpointError(f"{where} cannot be read: {error!r}") from None
        if not names:
            raise CheckpointError(f"{where} names no shards")
        for name in names:
            if not isinstance(name, str) or not name or name == ".." or Path(name).name != name:
                raise CheckpointError(f"{where} names {name!r}, which is no file of its folder")
            if name not in there:
                raise CheckpointError(f"{where}: shard {name} is missing; fetch it again")
        return sorted(names)

    @cached_property
    def _names(self) -> list[str]:
        try:
            return self.place.names()
        except (OSError, MissingError) as error:
            reason = getattr(error, "strerror", None) or error
            raise CheckpointError(f"checkpoint {self.name}: {self.place.where}: {reason}") from None

    @property
    def weight_files(self) -> list[Path]:
        """The shards on disk, once the checkpoint was fetched. Raises CheckpointError."""
        return [self.path / name for name in self.weights]

    @property
    def wants_code(self) -> bool:
        """Whether the config names classes of the repository's own."""
        return "auto_map" in self.config

    @cached_property
    def code(self) -> list[str]:
        """Python files that would be run, where that is asked for."""
        return [name for name in self._names if name.endswith(".py")] if self.trusted else []

    @property
    def needed(self) -> list[str]:
        """Names of the files an engine reads: no optimiser states, no weights in a second format."""
        index = [f"{stem}.{suffix}.index.json" for stem, suffix in WEIGHTS if len(self.weights) > 1]
        return [CONFIG, *self.code, *(name for name in index if name in self._names), *self.weights]

    def fetch(self) -> None:
        """Bring what an engine needs to `path`, verified; the place keeps it until `release`."""
        self.place.fetch(self.needed)

    def release(self) -> None:
        """The files may go when room is needed."""
        self.place.release()

    @property
    def bytes(self) -> int:
        """Size of the weights on disk."""
        return sum(self.place.size(name) for name in self.weights)

    @cached_property
    def digest(self) -> str:
        """Content identity: digest of the shards' SHA-256 and the config (16 hex digits)."""
        content: list[Any] = [self.architecture, [self.place.sha256(name) for name in self.weights]]
        if self.code:
            content.append([self.place.sha256(name) for name in self.code])
        return digest_of(content)
