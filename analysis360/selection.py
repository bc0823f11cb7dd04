"""What a command is about: the checkpoints that are asked for and can be read, and the dtype to compute in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from analysis360.errors import CheckpointError, SelectionError
from analysis360.hub.threads import in_threads
from analysis360.series import Checkpoint, Series
from analysis360.series.manifest import DTYPES
from analysis360.series.selectors import Selector
from analysis360.sweep import parse_shard

LISTS_AT_A_TIME = 16
"""Checkpoints on a Hub whose lists of files are read at a time."""


def selected(series: Series, ckpts: Selector, shard: str, out: str | Path) -> list[Checkpoint]:
    """The checkpoints of a shard, the other arguments being sound. Raises SelectionError."""
    if not str(out):
        raise SelectionError("out: expected a folder for results, found nothing")
    i, n = parse_shard(shard)
    some = series.select(ckpts)[i::n]
    if not some:
        raise SelectionError(f"shard {shard} holds none of the selected checkpoints")
    return some


def compute_dtype(dtype: str | None, series: Series) -> str:
    """The dtype asked for, or the manifest's. Raises SelectionError."""
    dtype = dtype or series.manifest.model.compute_dtype
    if dtype not in DTYPES:
        raise SelectionError(f"dtype {dtype!r}: expected one of {', '.join(DTYPES)}")
    return dtype


def readable(
    checkpoints: Sequence[Checkpoint], progress: bool
) -> tuple[list[Checkpoint], list[CheckpointError]]:
    """Checkpoints whose files are there, and what is wrong with the others; all wrong raises the first."""
    with tqdm(
        total=len(checkpoints), desc="checkpoints", disable=None if progress else True, leave=False
    ) as bar:

        def wrong(checkpoint: Checkpoint) -> CheckpointError | None:
            try:
                _ = checkpoint.digest
            except CheckpointError as error:
                return error
            finally:
                bar.update()
            return None

        at_a_time = LISTS_AT_A_TIME if any(checkpoint.place.far for checkpoint in checkpoints) else 1
        errors = in_threads(wrong, checkpoints, at_a_time)
    readable = [checkpoint for checkpoint, error in zip(checkpoints, errors, strict=True) if error is None]
    failures = [error for error in errors if error is not None]
    if not readable:
        raise failures[0]
    return readable, failures
