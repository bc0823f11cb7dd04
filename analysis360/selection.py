"""What a command is about: checkpoints that are asked for and can be read, chunks and their panels, the dtype."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from tqdm import tqdm

from analysis360.engines import resolve_kind
from analysis360.errors import CheckpointError, SelectionError
from analysis360.hub.threads import in_threads
from analysis360.panel import Panel, draw_panel
from analysis360.series import Checkpoint, Chunk, Series, open_series
from analysis360.series.manifest import DTYPES
from analysis360.series.selectors import Selector
from analysis360.store import Store
from analysis360.sweep import parse_shard

if TYPE_CHECKING:
    from analysis360.hub.options import HubOptions

Item = TypeVar("Item")
WINDOWS = ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length", "seq_length")
"""Keys of a config that tell how many ids a model reads."""
LISTS_AT_A_TIME = 16
"""Checkpoints on a Hub whose lists of files are read at a time."""


def opened(series: Series | str | Path, hub: HubOptions | None, pattern: str | None) -> Series:
    """A series as it is now, opened where it is only named (see `open_series`)."""
    if isinstance(series, Series):
        return series.afresh()
    return open_series(series, hub=hub, pattern=pattern)


def kind_of(engine: str, *, compute: bool) -> str:
    """The kind of engine asked for; one that is named need not be installed where nothing is computed."""
    return resolve_kind(engine) if compute or engine == "auto" else engine


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


def shown(items: Sequence[Item], what: str, progress: bool) -> Iterable[Item]:
    """The items one by one, under a progress bar."""
    return tqdm(items, desc=what, unit="", disable=None if progress else True, leave=False, delay=2)


def planned(
    series: Series, checkpoints: Sequence[Checkpoint], chunks: Selector
) -> list[tuple[Checkpoint, list[Chunk]]]:
    """The chunks to score under each checkpoint; `seen` leaves out what is unseen or unknown."""
    if not series.chunks:
        raise SelectionError(
            f"series {series.name} names no data: write a manifest with a [data] section (see docs/series.md)"
        )
    selected = series.select_chunks(chunks)
    plan = []
    for checkpoint in checkpoints:
        trained = selected
        if isinstance(chunks, str) and chunks == "seen":
            times = np.nan_to_num(series.exposure.times(checkpoint.index))
            trained = [chunk for chunk in selected if times[chunk.index] > 0]
        plan.append((checkpoint, [*trained, *series.controls]))
    return plan


def pieces_of(series: Series, plan: Sequence[tuple[Checkpoint, Sequence[Chunk]]]) -> list[Chunk]:
    """Every chunk of a plan, once, in series order."""
    used = {chunk.name for _, chunks in plan for chunk in chunks}
    return [chunk for chunk in [*series.chunks, *series.controls] if chunk.name in used]


def panel_of(
    series: Series, store: Store, chunk: Chunk, sequences: int, width: int, seed: int, *, keep: bool
) -> Panel:
    """The panel of a chunk, of up to so many sequences of `width` ids: stored, or drawn and kept."""
    eos = series.manifest.model.eos_token_id

    def draw(n: int) -> Panel:
        return draw_panel(chunk, n=n, width=width, seed=seed, vocabulary=series.vocabulary, eos=eos)

    return store.panel(chunk, draw, n=sequences, width=width, seed=seed, eos=eos, keep=keep)


def window_of(series: Series) -> int:
    """Ids the model reads. Raises SelectionError where its config does not tell."""
    config = series.checkpoints[0].config
    for key in WINDOWS:
        if isinstance(config.get(key), int):
            return int(config[key])
    raise SelectionError(
        f"series {series.name}: config.json tells no window; expected one of {', '.join(WINDOWS)}"
    )
