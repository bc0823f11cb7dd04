"""Losses of a few rows under neighbouring checkpoints: which to read, and reading them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from analysis360.engines import open_engine
from analysis360.errors import CheckpointError, DataError
from analysis360.panel import Panel, draw_panel
from analysis360.series import Chunk, Series

WINDOW = 4
"""Offsets tried on either side."""
APART = 8
"""Positions to a chunk that counts as a stranger: nearer ones share documents."""
STRANGERS = 4
"""Chunks not yet seen that each pair of checkpoints is compared on."""
TOKENS = 64
"""Ids of a row that are read, where the release does not say how long its rows are."""
LONGEST = 128
Losses = dict[tuple[int, str], NDArray[np.float64]]


@dataclass(frozen=True)
class Pair:
    """Two neighbouring checkpoints, and the chunks they are compared on."""

    later: int
    """Position of the later checkpoint; the other is the one before it."""
    near: Mapping[int, Chunk]
    """Offset -> the chunk that would have been trained on between the two, were the numbers so far off."""
    strangers: tuple[Chunk, ...]
    """Chunks far away and not yet seen, or held out."""


def pairs_of(series: Series, chosen: Iterable[int]) -> list[Pair]:
    """The chosen checkpoints that have trained on one more chunk than the one before."""
    order, positions = _order(series), _positions(series)
    pairs = []
    for i in chosen:
        if i == 0 or (position := positions[i]) is None or positions[i - 1] != position - 1:
            continue
        at = position - 1
        near = {d: order[at + d] for d in range(-WINDOW, WINDOW + 1) if 0 <= at + d < len(order)}
        known = {d: chunk for d, chunk in near.items() if chunk is not None}
        if strangers := _strangers(series, order, i, at):
            pairs.append(Pair(i, known, strangers))
    return pairs


def around_first(series: Series) -> list[Chunk]:
    """Chunks that the first checkpoint may have been trained on last."""
    order, position = _order(series), _positions(series)[0] or 0
    near = order[max(0, position - 1 - WINDOW) : position + WINDOW]
    return [chunk for chunk in near if chunk is not None]


def _order(series: Series) -> list[Chunk | None]:
    """The chunk at each position of training: by the schedule, or by number where there is none."""
    order = series.exposure.order or tuple(range(len(series.chunks)))
    return [None if c is None or c >= len(series.chunks) else series.chunks[c] for c in order]


def _positions(series: Series) -> list[int | None]:
    """Positions finished at each checkpoint; by number where the manifest knows nothing."""
    found = [series.exposure.positions(i) for i in range(len(series.checkpoints))]
    if all(np.isnan(value) for value in found):
        return [checkpoint.labels.get("index", i) + 1 for i, checkpoint in enumerate(series.checkpoints)]
    return [int(value) if value == np.floor(value) else None for value in found]


def _strangers(series: Series, order: Sequence[Chunk | None], checkpoint: int, at: int) -> tuple[Chunk, ...]:
    """Chunks at least `APART` positions on that the checkpoint has not seen; held-out ones without them."""
    times = series.exposure.times(checkpoint)
    later = [c for c in order[at + APART :] if c is not None and not times[c.index] > 0]
    return tuple(later[:STRANGERS]) or series.held_out[:STRANGERS]


def read_losses(
    series: Series,
    wanted: Mapping[int, Sequence[Chunk]],
    *,
    engine: str,
    sequences: int,
    seed: int,
    progress: bool,
) -> tuple[Losses, list[str]]:
    """(checkpoint, chunk) -> [n] mean loss of each sequence, nats a token, and what could not be read.

    Each checkpoint is fetched, scored and let go. Raises CheckpointError where the first one has no
    config, HubError, EngineError.
    """
    width = _width(series)
    panels, failures = _panels(series, wanted, width, sequences, seed)
    losses: Losses = {}
    running = open_engine(engine, dtype=series.manifest.model.compute_dtype, max_tokens=width)
    try:
        for i in tqdm(sorted(wanted), desc="losses", disable=None if progress else True, leave=False):
            checkpoint = series.checkpoints[i]
            try:
                checkpoint.fetch()
            except CheckpointError as error:
                failures.append(str(error))
                continue
            try:
                running.load(checkpoint)
                for chunk in (chunk for chunk in wanted[i] if chunk.name in panels):
                    forced = running.forced(panels[chunk.name].ids, 1)
                    losses[i, chunk.name] = -forced.logprob.astype(np.float64).mean(axis=1)
            except CheckpointError as error:
                failures.append(str(error))
            finally:
                checkpoint.release()
    finally:
        running.close()
    return losses, failures


def _width(series: Series) -> int:
    window = series.checkpoints[0].config.get("max_position_embeddings")
    width = min(series.chunks[0].layout.row_tokens or TOKENS, LONGEST)
    return min(width, window) if isinstance(window, int) else width


def _panels(
    series: Series, wanted: Mapping[int, Sequence[Chunk]], width: int, sequences: int, seed: int
) -> tuple[dict[str, Panel], list[str]]:
    """The panel of each chunk by its name, and what could not be read."""
    eos, vocabulary = series.manifest.model.eos_token_id, series.vocabulary
    panels, failures = {}, []
    for name, chunk in {chunk.name: chunk for some in wanted.values() for chunk in some}.items():
        try:
            panels[name] = draw_panel(
                chunk, n=sequences, width=width, seed=seed, vocabulary=vocabulary, eos=eos
            )
        except DataError as error:
            failures.append(str(error))
    return panels, failures
