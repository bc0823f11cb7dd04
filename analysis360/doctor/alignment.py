"""Alignment: does checkpoint i follow chunk i? Tested by the drop of loss between neighbouring checkpoints.

Training on a chunk lowers its loss more than that of a chunk far away and not yet seen. For each
offset d of a small window the mean excess over pairs of checkpoints is taken, paired by sequence;
the best offset counts only if it beats the strangers and every other offset in a bootstrap over the
chunks, at a level corrected for the number of offsets. Otherwise the answer is "undetermined".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from analysis360.doctor.findings import Finding
from analysis360.doctor.losses import APART, Losses, Pair, around_first, pairs_of, read_losses
from analysis360.errors import SelectionError
from analysis360.series import Chunk, Series
from analysis360.series.selectors import Selector
from analysis360.statistics import Interval, bootstrap_over_clusters

LEVEL = 0.95
"""Confidence of the whole answer: how rarely a wrong offset may be named."""
RESAMPLES = 20_000
FEWEST = 4
"""Pairs of checkpoints without which nothing is said."""
PAIRS = 8
"""Pairs of checkpoints compared where the user chooses none, spread over the series."""
UNTRAINED = 0.95
"""Share of log(vocabulary) above which a loss looks like that of weights nobody trained."""


@dataclass(frozen=True)
class Alignment:
    """What the losses say of the numbers of checkpoints and chunks."""

    offset: int | None
    """Checkpoint i had last been trained on the chunk so many places after the one its manifest says."""
    reason: str
    """What the answer rests on, or why there is none."""
    pairs: tuple[str, ...] = ()
    """The later checkpoint of each pair."""
    excess: Mapping[int, Interval] = field(default_factory=dict)
    """Drop of loss beyond that on strangers at each offset, nats a token; simultaneous intervals."""
    votes: Mapping[int, int] = field(default_factory=dict)
    """Pairs whose own best offset it is."""
    first: str = ""
    """The first checkpoint."""
    first_loss: float | None = None
    """Its mean loss on the chunk it knows best of those it may have been trained on last, nats a token."""
    chance: float = 0.0
    """log(vocabulary): the loss of a model that knows nothing."""
    failures: tuple[str, ...] = ()
    """Checkpoints that could not be loaded and chunks whose rows could not be read."""

    @property
    def untrained(self) -> bool | None:
        """Whether the first checkpoint looks like weights that nobody trained; None when it was not read."""
        return None if self.first_loss is None else self.first_loss > UNTRAINED * self.chance


def align(
    series: Series, *, ckpts: Selector | None, engine: str, sequences: int, seed: int, progress: bool
) -> Alignment:
    """Read losses of `sequences` rows a chunk and test the numbers. Raises Analysis360Error."""
    if not series.chunks:
        raise SelectionError("--loss: the series names no data; give a manifest with a [data] section")
    if sequences < 1:
        raise SelectionError(f"sequences: expected at least 1, found {sequences}")
    pairs = _chosen(series, ckpts)
    wanted: dict[int, dict[str, Chunk]] = {0: {chunk.name: chunk for chunk in around_first(series)}}
    for pair in pairs:
        for i in (pair.later - 1, pair.later):
            wanted.setdefault(i, {}).update({c.name: c for c in [*pair.near.values(), *pair.strangers]})
    listed = {i: list(chunks.values()) for i, chunks in wanted.items()}
    losses, failures = read_losses(
        series, listed, engine=engine, sequences=sequences, seed=seed, progress=progress
    )
    first = [losses[0, chunk.name].mean() for chunk in listed[0] if (0, chunk.name) in losses]
    judged = judge(series, pairs, losses, seed)
    return Alignment(
        **{
            **vars(judged),
            "first": series.checkpoints[0].name,
            "first_loss": float(min(first)) if first else None,
            "chance": float(np.log(series.vocabulary)),
            "failures": tuple(failures),
        }
    )


def _chosen(series: Series, ckpts: Selector | None) -> list[Pair]:
    """Pairs that end at the selected checkpoints; of all pairs, some evenly spread."""
    if ckpts is not None:
        return pairs_of(series, [checkpoint.index for checkpoint in series.select(ckpts)])
    pairs = pairs_of(series, range(len(series.checkpoints)))
    picked = np.linspace(0, len(pairs) - 1, min(PAIRS, len(pairs))).round().astype(int)
    return [pairs[i] for i in picked]


def judge(series: Series, pairs: Sequence[Pair], losses: Losses, seed: int = 0) -> Alignment:
    """The best offset by the losses that were read, or "undetermined" and why."""
    used = [pair for pair in pairs if _complete(pair, losses)]
    names = tuple(series.checkpoints[pair.later].name for pair in used)
    if len(used) < FEWEST:
        return Alignment(
            None,
            f"{len(used)} pairs of neighbouring checkpoints, one chunk apart and with a stranger at least "
            f"{APART} chunks on or held out; at least {FEWEST} are needed",
            names,
        )
    table = _table(used, losses)
    kept = [d for d in table if np.isfinite(table[d]).sum() >= FEWEST]
    table = {d: table[d] for d in kept}
    level = 1 - 2 * (1 - LEVEL) / max(len(table), 1)  # one-sided, for every offset at once
    excess = {d: _interval(values, level, seed) for d, values in table.items()}
    votes = _votes(table)
    if not table:
        return Alignment(None, "no chunk was trained on at a known place", names, {}, {})
    best = max(table, key=lambda d: excess[d].value)
    reason = _doubt(best, table, excess[best], level, seed)
    if reason:
        return Alignment(None, reason, names, excess, votes)
    reason = f"{excess[best].value:.3g} nats a token more than strangers, and more than at every other offset"
    return Alignment(best, reason, names, excess, votes)


def _complete(pair: Pair, losses: Losses) -> bool:
    chunks = [*pair.near.values(), *pair.strangers]
    return all((i, c.name) in losses for i in (pair.later - 1, pair.later) for c in chunks)


def _table(pairs: Sequence[Pair], losses: Losses) -> dict[int, NDArray[np.float64]]:
    """Offset -> [pairs] mean drop of loss beyond that on strangers; NaN where there is no such chunk."""
    offsets = sorted({d for pair in pairs for d in pair.near})
    table = {d: np.full(len(pairs), np.nan) for d in offsets}
    for row, pair in enumerate(pairs):
        strangers = np.mean([_drop(pair, chunk, losses) for chunk in pair.strangers])
        for d, chunk in pair.near.items():
            table[d][row] = _drop(pair, chunk, losses) - strangers
    return table


def _drop(pair: Pair, chunk: Chunk, losses: Losses) -> float:
    """Mean over the sequences of what each lost of its loss between the two checkpoints, nats a token."""
    return float(np.mean(losses[pair.later - 1, chunk.name] - losses[pair.later, chunk.name]))


def _interval(values: NDArray[np.float64], level: float, seed: int) -> Interval:
    known = values[np.isfinite(values)]
    return bootstrap_over_clusters(known, np.ones(len(known)), level=level, resamples=RESAMPLES, seed=seed)


def _votes(table: Mapping[int, NDArray[np.float64]]) -> dict[int, int]:
    offsets = list(table)
    best = np.nanargmax(np.array([table[d] for d in offsets]), axis=0)
    return {d: int((best == i).sum()) for i, d in enumerate(offsets)}


def _doubt(
    best: int, table: Mapping[int, NDArray[np.float64]], excess: Interval, level: float, seed: int
) -> str:
    """Why the best offset is not certain; empty when it is."""
    if not excess.low > 0:
        return "no chunk's loss drops reliably more than that of strangers"
    for other in sorted(table, key=lambda d: -np.nanmean(table[d])):
        if other != best and not _interval(table[best] - table[other], level, seed).low > 0:
            return f"offsets {best:+d} and {other:+d} are not told apart"
    return ""


def alignment_findings(series: Series, alignment: Alignment) -> list[Finding]:
    """What is wrong by the losses."""
    findings = []
    expected = "each checkpoint follows the chunk its manifest says"
    if alignment.offset is None:
        advice = "read more rows (`sequences`) or more checkpoints (`ckpts`)"
        found = f"undetermined: {alignment.reason}"
        findings.append(Finding("note", "alignment-undetermined", series.name, expected, found, advice))
    elif alignment.offset:
        found = f"offset {alignment.offset:+d}: {alignment.reason}"
        advice = "correct `first`, `offset` or `order` in the manifest by as much"
        findings.append(Finding("error", "misaligned", series.name, expected, found, advice))
    findings += [
        Finding(
            "error", "unscored", series.name, "weights and rows that can be read", failure, "upload it again"
        )
        for failure in alignment.failures
    ]
    return findings + _first(series, alignment)


def _first(series: Series, alignment: Alignment) -> list[Finding]:
    """Whether the first checkpoint is as far as the manifest says."""
    positions = series.exposure.positions(0)
    if alignment.untrained is None or np.isnan(positions) or alignment.untrained == (positions == 0):
        return []
    begun = f"trained on {positions:g} chunks" if positions else "the initial weights"
    found = f"a loss of {alignment.first_loss:.3f}; log(vocabulary) is {alignment.chance:.3f}"
    kind = "first-untrained" if positions else "first-trained"
    advice = "see which state of training it is, and correct the manifest"
    return [Finding("error", kind, alignment.first, begun, found, advice, (alignment.first,))]
