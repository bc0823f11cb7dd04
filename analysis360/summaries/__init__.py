"""A frame of scores (a row per checkpoint and sequence) in, small tidy tables out; `figures` draws them.

Every share, score and interval bound is a fraction in [0, 1]; `tokens...` columns count tokens; a `*_low` and
`*_high` pair is a 95 % interval.  A chunk is *trained text* once its sequences have been trained on, *not yet
trained* while exposures are 0; unknown exposures (NaN) are neither.  Sequences without a score are left out.
The frame's columns are those of `Result.frame()`; any row order and unused categories are fine.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis360 import statistics
from analysis360.errors import Analysis360Error
from analysis360.summaries.cells import (
    GROUPS,
    MEASURES,
    Axis,
    Bools,
    Cells,
    Floats,
    axis_of,
    bounds_of,
    cells_of,
    edges_of,
    gain_of,
    group_masks,
    hits_of,
    is_value,
    require,
    scored,
)

__all__ = [
    "GROUPS",
    "Correlations",
    "canary_curves",
    "chunk_groups",
    "control_check",
    "correlations",
    "distribution",
    "exposure_profile",
    "summary",
]

OVER = ("seen", "all", "held-out")
NOT_TRAINED = "not trained on by the last"


@dataclass(frozen=True)
class Correlations:
    """Correlation of sequences between checkpoints (Figure 9); every table is [checkpoints, checkpoints].

    `value` is "score" (`r` is Pearson's) or "extractible" (`r` is phi, and `phi_max` and `conditional` are
    there: see `statistics.phi`).  `n` counts the sequences behind each cell.  Index and columns are
    checkpoint names.
    """

    value: str
    over: str
    r: pd.DataFrame
    n: pd.DataFrame
    phi_max: pd.DataFrame | None = None
    conditional: pd.DataFrame | None = None


def summary(frame: pd.DataFrame, chunks_in_series: Mapping[str, int]) -> pd.DataFrame:
    """Mean score and extractible share of each checkpoint and group of sequences, with 95 % intervals.

    `chunks_in_series` gives the number of distinct chunks of the roles "train" and "held-out" in the whole
    series, which decides the interval: sequences of one chunk alone are resampled (Wilson for the
    extractible); when every chunk that could be in the group is in the frame, only the sequences within
    chunks are a sample; otherwise chunks are.  Each canary is its own sequence.  `score_interval` and
    `extractible_interval` name the method.  One row per non-empty (ckpt, group); columns: ckpt, tokens,
    group, sequences, chunks, score_mean, extractible_share (each with _low, _high), score_interval,
    extractible_interval, score_in_document_mean, sequences_in_document.  Section 4.3 of the paper defines
    the two measures. Raises Analysis360Error on missing columns or a role that `chunks_in_series` lacks or
    understates.
    """
    require(frame, "role exposures first_seen done score score_in_document extractible repeats")
    ckpts, chunks = axis_of(frame, "ckpt"), axis_of(frame, "chunk")
    canaries = Axis(np.zeros(len(frame), np.int64), ["canaries"])
    totals = {role: _total(frame, chunks, role, chunks_in_series) for role in ("train", "held-out")}
    masks = group_masks(frame)
    cells = {
        group: cells_of(frame, ckpts, canaries if group in GROUPS[3:] else chunks, mask)
        for group, mask in masks.items()
    }
    first = chunks.first(frame["first_seen"].where(is_value(frame, "role", "train")))
    complete = _complete(cells, ckpts.first(frame["done"]), first, totals)
    tokens, inside = ckpts.first(frame["tokens"]), frame["score_in_document"].to_numpy(np.float64)
    rows: list[dict[str, Any]] = []
    for g, group in enumerate(GROUPS):
        kept = masks[group] & ~np.isnan(inside)
        sums = np.bincount(ckpts.codes[kept], weights=inside[kept], minlength=len(ckpts))
        counts = np.bincount(ckpts.codes[kept], minlength=len(ckpts))
        everything = np.ones(cells[group].histogram.shape[1], bool)
        for k in range(len(ckpts)):
            if measures := cells[group].measures(k, everything, bool(complete[group][k])):
                mean = sums[k] / counts[k] if counts[k] else np.nan
                document = {"score_in_document_mean": mean, "sequences_in_document": int(counts[k])}
                rows.append({"ckpt": k, "tokens": tokens[k], "group": g, **measures, **document})
    columns = ["ckpt", "tokens", "group", *MEASURES, "score_in_document_mean", "sequences_in_document"]
    table = pd.DataFrame(rows, columns=columns).sort_values(["ckpt", "group"], ignore_index=True)
    table["ckpt"] = ckpts.column(table["ckpt"])
    table["group"] = Axis(chunks.codes, list(GROUPS)).column(table["group"])
    return table


def distribution(
    frame: pd.DataFrame,
    continuation_tokens: int,
    chunks: str = "seen",
) -> pd.DataFrame:
    """Distribution of the memorization score over its l + 1 values for each checkpoint (Figure 7).

    l is `continuation_tokens`.  `chunks` = "seen" takes, as the figure does, train sequences that the
    checkpoint has been trained on. Columns: ckpt, tokens, correct_tokens (0 ... l), score, sequences, share
    (of n; NaN if n = 0), n, extractible_share (the share at score 1, repeated on the checkpoint's rows): l
    + 1 rows per checkpoint. Raises Analysis360Error if scores are not multiples of 1/l.
    """
    require(frame, "role exposures score repeats")
    names = {"seen": GROUPS[0], "not yet trained": GROUPS[1], "held-out": GROUPS[2]}
    if chunks not in names:
        raise Analysis360Error(f"chunks must be one of {', '.join(names)}, got {chunks!r}")
    ckpts = axis_of(frame, "ckpt")
    kept = group_masks(frame)[names[chunks]] & scored(frame)
    levels = continuation_tokens + 1
    hits = hits_of(frame["score"].to_numpy()[kept], continuation_tokens)
    cells = np.bincount(ckpts.codes[kept] * levels + hits, minlength=len(ckpts) * levels)
    counts = cells.reshape(len(ckpts), levels)
    n = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, n, out=np.full(counts.shape, np.nan), where=n > 0)
    which, correct = np.indices(counts.shape).reshape(2, -1)
    return pd.DataFrame(
        {
            "ckpt": ckpts.column(which),
            "tokens": ckpts.first(frame["tokens"])[which],
            "correct_tokens": correct,
            "score": correct / continuation_tokens,
            "sequences": counts.ravel(),
            "share": shares.ravel(),
            "n": n.ravel()[which],
            "extractible_share": shares[which, -1],
        }
    )


def chunk_groups(frame: pd.DataFrame, intervals: bool | None = None, complete: bool = False) -> pd.DataFrame:
    """Mean score of each checkpoint on train chunks grouped by when they were first trained on (Figure 8).

    Group g holds the chunks first trained on after checkpoint g - 1 and by checkpoint g of those in the
    frame; the last group those not trained on by the last one.  Chunks of unknown exposure are left out.
    `latest` marks each checkpoint's last seen group that holds sequences.  Intervals resample chunks, or the
    sequences within chunks when `complete` (every train chunk of the series is in) or a group has one chunk;
    `intervals=False` leaves them NaN, and so does None beyond 40 checkpoints.  Columns: ckpt, tokens, group,
    group_label, group_tokens (trained by the group's end; NaN for the last), sequences, chunks, score_mean
    and extractible_share (each with _low, _high), score_interval, extractible_interval, seen, latest; a row
    per non-empty (ckpt, group).
    """
    require(frame, "role exposures first_seen done score extractible")
    ckpts, chunks = axis_of(frame, "ckpt"), axis_of(frame, "chunk")
    tokens, done = ckpts.first(frame["tokens"]), ckpts.first(frame["done"])
    known = is_value(frame, "role", "train") & frame["exposures"].notna().to_numpy(bool)
    cells = cells_of(frame, ckpts, chunks, known)
    first = chunks.first(frame["first_seen"])
    # a chunk belongs to the first checkpoint that has seen it; NaN here means never, as unknown ones are out
    group = np.searchsorted(np.maximum.accumulate(done), np.where(np.isnan(first), np.inf, first))
    ends = np.append(tokens, np.nan)
    bounds = len(ckpts) <= 40 if intervals is None else intervals
    rows: list[dict[str, Any]] = []
    for k, g in itertools.product(range(len(ckpts)), np.unique(group)):
        if measures := cells.measures(k, group == g, complete=complete, bounds=bounds):
            rows.append({"ckpt": k, "tokens": tokens[k], "group": g, "group_tokens": ends[g], **measures})
    columns = ["ckpt", "tokens", "group", "group_label", "group_tokens", *MEASURES]
    table = pd.DataFrame(rows, columns=columns)
    labels = [f"by {name}" for name in ckpts.names] + [NOT_TRAINED]
    table["group_label"] = Axis(chunks.codes, labels).column(table["group"])
    table["seen"] = table["group"] <= table["ckpt"]
    last = table["group"].where(table["seen"]).groupby(table["ckpt"]).transform("max")
    table["latest"] = table["group"] == last
    table["ckpt"] = ckpts.column(table["ckpt"])
    return table


def exposure_profile(frame: pd.DataFrame, bins: int | Sequence[float] = 8) -> pd.DataFrame:
    """How much better trained text is recalled than untrained text, by tokens trained on since last exposure.

    At each checkpoint the mean score of a baseline is taken off that of trained sequences; the differences
    (fractions of tokens) are pooled over checkpoints in bins of `tokens_since`: ascending edges in tokens,
    or a number of about equally filled bins.  The baselines are train chunks not yet trained on, and
    held-out text, both at the same checkpoint; a checkpoint without one does not count.  Intervals resample
    whole chunks, those of the baseline too (a baseline of one chunk counts as exact). Columns: baseline,
    tokens_since_low, tokens_since_high (the bin), tokens_since_mean, score_difference (with _low, _high),
    observations (sequence x checkpoint pairs), chunks, checkpoints. Raises Analysis360Error on bins that do
    not ascend.
    """
    require(frame, "role exposures tokens_since score repeats extractible")
    ckpts, chunks = axis_of(frame, "ckpt"), axis_of(frame, "chunk")
    masks, since = group_masks(frame), frame["tokens_since"].to_numpy(np.float64)
    kept = masks["trained text"] & scored(frame) & ~np.isnan(since)
    edges = edges_of(since[kept], bins)
    bin_of = np.where(since == edges[-1], len(edges) - 2, np.searchsorted(edges, since, side="right") - 1)
    rows = []
    baselines = {name: cells_of(frame, ckpts, chunks, masks[name]) for name in GROUPS[1:3]}
    for b in range(len(edges) - 1):
        inside = kept & (bin_of == b)
        trained = cells_of(frame, ckpts, chunks, inside)
        for name, baseline in baselines.items():
            usable = (trained.counts.sum(axis=1) > 0) & (baseline.counts.sum(axis=1) > 0)
            if usable.any():
                gain = gain_of(trained, baseline, usable)
                counted = trained.counts[usable]
                rows.append(
                    {
                        "baseline": name,
                        "tokens_since_low": edges[b],
                        "tokens_since_high": edges[b + 1],
                        "tokens_since_mean": since[inside & usable[ckpts.codes]].mean(),
                        **bounds_of("score_difference", gain),
                        "observations": gain.n,
                        "chunks": int((counted.sum(axis=0) > 0).sum()),
                        "checkpoints": int(usable.sum()),
                    }
                )
    columns = (
        "baseline tokens_since_low tokens_since_high tokens_since_mean score_difference score_difference_low "
        "score_difference_high observations chunks checkpoints"
    )
    return pd.DataFrame(rows, columns=columns.split())


def canary_curves(frame: pd.DataFrame) -> pd.DataFrame:
    """Recall of canaries over training, by how often and how spaced they are planted in all.

    Columns: ckpt, tokens, repeats (times planted in all, 0 = never), spacing ("even", "chunk", "never"),
    sequences, score_mean, extractible_share, exposures_mean (plantings so far), planted_first and
    planted_first_latest (schedule positions done at the first planting, of the earliest and latest canary),
    planted_first_tokens (the earliest in tokens, interpolated between checkpoints; NaN for never).
    """
    require(frame, "role exposures done score extractible repeats spacing planted_first")
    ckpts = axis_of(frame, "ckpt")
    kept = is_value(frame, "role", "canary") & scored(frame)
    part = frame.loc[kept]
    spacing = part["spacing"].astype(object)
    plain = pd.DataFrame(
        {
            "ckpt": ckpts.codes[kept],
            "repeats": part["repeats"].to_numpy(np.float64),
            "spacing": spacing.where(spacing.notna() & (part["repeats"] > 0), "never").to_numpy(),
            **{name: part[name].to_numpy(np.float64) for name in ("score", "extractible", "exposures")},
            "planted_first": part["planted_first"].to_numpy(np.float64),
        }
    )
    table = plain.groupby(["ckpt", "repeats", "spacing"], sort=True).agg(
        sequences=("score", "size"),
        score_mean=("score", "mean"),
        extractible_share=("extractible", "mean"),
        exposures_mean=("exposures", "mean"),
        planted_first=("planted_first", "min"),
        planted_first_latest=("planted_first", "max"),
    )
    table = table.reset_index()
    tokens, done = ckpts.first(frame["tokens"]), ckpts.first(frame["done"])
    order = np.argsort(done)
    # training starts at (0, 0), which need not be a checkpoint of the frame
    positions, trained = np.append(0.0, done[order]), np.append(0.0, tokens[order])
    first = table["planted_first"].to_numpy(np.float64)
    table["planted_first_tokens"] = np.interp(first, positions, trained, right=np.nan)
    table.insert(1, "tokens", tokens[table["ckpt"].to_numpy(np.int64)])
    table["ckpt"] = ckpts.column(table["ckpt"])
    return table


def control_check(
    frame: pd.DataFrame, ordinary_ids: int, continuation_tokens: int, level: float = 0.999
) -> pd.DataFrame:
    """Whether canaries never planted are recalled no better than chance, at each checkpoint.

    Their tokens are drawn evenly from `ordinary_ids` ids, so hits among n = canaries x continuation tokens
    are binomial at 1 / ordinary_ids.  Of many checkpoints a share 1 - level falls outside by chance.
    Columns: ckpt, tokens, tokens_scored, hits, hits_expected, hits_low, hits_high, inside, level.
    """
    require(frame, "role exposures score repeats")
    if ordinary_ids < 1:
        raise Analysis360Error(f"ordinary_ids must be at least 1, got {ordinary_ids}")
    ckpts = axis_of(frame, "ckpt")
    kept = group_masks(frame)["never planted"] & scored(frame)
    codes = ckpts.codes[kept]
    right = hits_of(frame["score"].to_numpy()[kept], continuation_tokens)
    hits = np.bincount(codes, weights=right, minlength=len(ckpts)).astype(np.int64)
    n = np.bincount(codes, minlength=len(ckpts)) * continuation_tokens
    bounds = [statistics.binomial_interval(int(total), 1 / ordinary_ids, level) for total in n]
    low, high = np.array(bounds, np.int64).reshape(-1, 2).T
    table = pd.DataFrame(
        {
            "ckpt": ckpts.column(np.arange(len(ckpts))),
            "tokens": ckpts.first(frame["tokens"]),
            "tokens_scored": n,
            "hits": hits,
            "hits_expected": n / ordinary_ids,
            "hits_low": low,
            "hits_high": high,
            "inside": (low <= hits) & (hits <= high),
            "level": level,
        }
    )
    return table.loc[n > 0].reset_index(drop=True)


def correlations(
    frame: pd.DataFrame,
    value: str = "score",
    over: str = "seen",
) -> Correlations:
    """Correlation between checkpoints over sequences of text (Figure 9).

    `over="seen"` takes for each pair of checkpoints the train sequences that both had been trained on; "all"
    every train sequence, trained on or not; "held-out" the held-out ones, the control: what correlates there
    is predictability, not memory.  Raises Analysis360Error on another `value` or `over`, or if a sequence
    occurs twice at a checkpoint.
    """
    require(frame, "role exposures score extractible position repeats")
    if value not in ("score", "extractible") or over not in OVER:
        raise Analysis360Error(
            f'expected "score" or "extractible", and one of {", ".join(OVER)}; got {value!r}, {over!r}'
        )
    ckpts, chunks = axis_of(frame, "ckpt"), axis_of(frame, "chunk")
    masks = {"all": is_value(frame, "role", "train"), "held-out": is_value(frame, "role", "held-out")}
    kept = (masks[over] if over in masks else group_masks(frame)["trained text"]) & scored(frame)
    positions = frame["position"].to_numpy(np.int64)[kept]
    keys = chunks.codes[kept] * (positions.max(initial=0) + 1) + positions
    columns, sequences = pd.factorize(keys)
    matrix = np.full((len(ckpts), len(sequences)), np.nan, np.float32)
    matrix[ckpts.codes[kept], columns] = frame[value].to_numpy(np.float32)[kept]
    if np.count_nonzero(~np.isnan(matrix)) != len(columns):
        raise Analysis360Error(
            "a sequence (chunk, position) occurs twice at a checkpoint; pass one run's rows"
        )

    def labelled(table: Floats) -> pd.DataFrame:
        index = pd.Index(ckpts.names, name="ckpt")
        return pd.DataFrame(table, index=index, columns=index)

    if value == "score":
        r, n = statistics.pearson(matrix)
        return Correlations(value, over, labelled(r), labelled(n).astype(int))
    t = statistics.phi(matrix)
    tables = labelled(t.phi), labelled(t.n).astype(int), labelled(t.phi_max), labelled(t.conditional)
    return Correlations(value, over, *tables)


def _total(frame: pd.DataFrame, chunks: Axis, role: str, chunks_in_series: Mapping[str, int]) -> int:
    """Distinct chunks of a role in the series, which cannot be fewer than in the frame."""
    found = int(np.count_nonzero(np.bincount(chunks.codes[is_value(frame, "role", role)])))
    if found and chunks_in_series.get(role, 0) < found:
        raise Analysis360Error(
            f"the frame holds {found} {role} chunks; chunks_in_series[{role!r}] must say how many there are, "
            f"got {chunks_in_series.get(role)}"
        )
    return chunks_in_series.get(role, 0)


def _complete(
    cells: Mapping[str, Cells], done: Floats, first: Floats, totals: Mapping[str, int]
) -> dict[str, Bools]:
    """For each group and checkpoint, [checkpoints], whether every chunk that could be in the group is in."""
    present = {group: (cells[group].counts > 0).sum(axis=1) for group in GROUPS}
    known = (cells[GROUPS[0]].counts + cells[GROUPS[1]].counts).sum(axis=0) > 0
    # a chunk of unknown exposure could be in either group, so it leaves both incomplete
    all_train = known.sum() == totals["train"]
    trained, untrained = present[GROUPS[0]], present[GROUPS[1]]
    # `done` positions hold at most as many distinct chunks, so a frame of seen chunks only can be complete
    by_now = (first[None, :] <= done[:, None]).sum(axis=1)
    never: Bools = np.zeros(len(done), np.bool_)
    return {
        GROUPS[0]: (trained >= done) | (all_train & (trained == by_now)),
        GROUPS[1]: all_train & (trained + untrained == totals["train"]),
        GROUPS[2]: present[GROUPS[2]] == totals["held-out"],
        GROUPS[3]: never,
        GROUPS[4]: never,
    }
