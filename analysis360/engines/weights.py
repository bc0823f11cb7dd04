"""Weights of a checkpoint: read as data, never executed, checked before use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from safetensors import SafetensorError, safe_open

from analysis360.errors import CheckpointError
from analysis360.series import Checkpoint

Shapes = Mapping[str, tuple[int, ...]]


def tensor_shapes(checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every stored tensor; for safetensors from the headers alone."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file in checkpoint.weight_files:
        if file.suffix == ".safetensors":
            with _safe_open(checkpoint, str(file)) as shard:
                shapes |= {name: tuple(shard.get_slice(name).get_shape()) for name in shard.keys()}  # noqa: SIM118
        else:
            shapes |= {name: tuple(tensor.shape) for name, tensor in _unpickle(checkpoint, str(file)).items()}
    return shapes


def iterate(checkpoint: Checkpoint) -> Iterator[tuple[str, torch.Tensor]]:
    """Every stored tensor, one shard in memory at a time. Raises CheckpointError on non-finite values."""
    for file in checkpoint.weight_files:
        if file.suffix == ".safetensors":
            with _safe_open(checkpoint, str(file)) as shard:
                for name in shard.keys():  # noqa: SIM118
                    yield name, _finite(checkpoint, name, shard.get_tensor(name))
        else:
            for name, tensor in _unpickle(checkpoint, str(file)).items():
                yield name, _finite(checkpoint, name, tensor)


def check_shapes(checkpoint: Checkpoint, expected: Shapes, optional: frozenset[str] = frozenset()) -> None:
    """Compare stored names and shapes with what the model needs. Raises CheckpointError naming the first."""
    found = tensor_shapes(checkpoint)
    where = f"checkpoint {checkpoint.name} ({checkpoint.path})"
    for name, shape in expected.items():
        if name not in found:
            if name in optional:
                continue
            raise CheckpointError(f"{where}: tensor {name} is missing; fetch or save the checkpoint again")
        if found[name] != shape:
            raise CheckpointError(
                f"{where}: tensor {name} is {list(found[name])}; the series has {list(shape)}"
            )
    for name in found.keys() - expected.keys() - optional:
        if not name.endswith("rotary_emb.inv_freq"):  # older files store this derived buffer
            raise CheckpointError(
                f"{where}: tensor {name} is not part of the model {checkpoint.config['model_type']}"
            )


def check_config(checkpoint: Checkpoint, first: Checkpoint) -> None:
    """All checkpoints of a series share one architecture. Raises CheckpointError naming the key."""
    ours, theirs = checkpoint.architecture, first.architecture
    for key in sorted(ours.keys() | theirs.keys()):
        if ours.get(key) != theirs.get(key):
            raise CheckpointError(
                f"checkpoint {checkpoint.name}: config has {key} = {ours.get(key)!r}; "
                f"{first.name} has {theirs.get(key)!r}: not the same model"
            )


def _finite(checkpoint: Checkpoint, name: str, tensor: torch.Tensor) -> torch.Tensor:
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        bad = int((~torch.isfinite(tensor)).sum())
        raise CheckpointError(
            f"checkpoint {checkpoint.name} ({checkpoint.path}): tensor {name} holds {bad} values that are not finite"
        )
    return tensor


def _safe_open(checkpoint: Checkpoint, file: str) -> safe_open:
    try:
        return safe_open(file, framework="pt")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"checkpoint {checkpoint.name}: {file} cannot be read: {error}") from None


def _unpickle(checkpoint: Checkpoint, file: str) -> dict[str, torch.Tensor]:
    try:
        return dict(torch.load(file, map_location="cpu", weights_only=True, mmap=True))
    except Exception as error:  # torch raises many kinds here; each means the same to the reader
        raise CheckpointError(
            f"checkpoint {checkpoint.name}: {file} cannot be read as weights: {error}"
        ) from None
