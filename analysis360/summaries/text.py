"""Summaries of text: over training, over the scores, over the chunks."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis360.errors import Analysis360Error
from analysis360.summaries.columns import Bools, Floats, named
from analysis360.summaries.grid import GROUPS, Grid
from analysis360.summaries.measures import MEASURES, measures

NOT_TRAINED = "not trained on by the last"
DISTRIBUTED = {"seen": GROUPS[0], "not yet trained": GROUPS[1], "held-out": GROUPS[2]}


def summary(grid: Grid, chunks_in_series: Mapping[str, int]) -> pd.DataFrame:
    """Mean score and extractible share of each checkpoint and group of sequences, with 95 % intervals.

    `chunks_in_series` gives the number of distinct chunks of the roles "train" and "held-out" in the whole
    series, which decides the interval: sequences of one chunk alone are resampled (Wilson for the
    extractible); when every chunk that could be in the group was scored, only the sequences within
    chunks are a sample; otherwise chunks are.  Each canary is its own sequence.  `score_interval` and
    `extractible_interval` name the method.  One row per non-empty (ckpt, group); columns: ckpt, tokens,
    group, sequences, chunks, score_mean, extractible_share (each with _low, _high), score_interval,
    extractible_interval, score_in_document_mean, sequences_in_document.  Section 4.3 of the paper defines
    the two measures. Raises Analysis360Error on a role that `chunks_in_series` lacks or understates.
    """
    totals = {role: _total(grid, role, chunks_in_series) for role in ("train", "held-out")}
    members = [grid.members(group) for group in GROUPS]
    rows: list[dict[str, Any]] = []
    for k in range(len(grid.ckpts)):
        counts = [grid.tally(k, of_group[k]) for of_group in members]
        complete = _complete(grid, k, counts, totals)
        inside = np.asarray(grid.in_document(k), np.float64)
        known = ~np.isnan(inside)
        for g, group in enumerate(GROUPS):
            within = counts[g].sum(axis=0, keepdims=True) if g >= 3 else counts[g]
            if row := measures(within, complete.get(group, False), scored=grid.scored):
                kept = known & grid.spread(members[g][k])
                n = int(kept.sum())
                mean = float(inside[kept].mean()) if n else np.nan
                document = {"score_in_document_mean": mean, "sequences_in_document": n}
                rows.append({"ckpt": k, "tokens": grid.tokens[k], "group": g, **row, **document})
    columns = ["ckpt", "tokens", "group", *MEASURES, "score_in_document_mean", "sequences_in_document"]
    table = pd.DataFrame(rows, columns=columns)
    table["ckpt"] = named(grid.ckpts, table["ckpt"])
    table["group"] = named(GROUPS, table["group"])
    return table


def mean_scores(grid: Grid, group: str) -> pd.DataFrame:
    """Of one of GROUPS, at each checkpoint that has it: ckpt, tokens, group, score_mean, extractible_share."""
    members = grid.members(group)
    rows = []
    for k in range(len(grid.ckpts)):
        if row := measures(grid.tally(k, members[k]), complete=False, bounds=False, scored=grid.scored):
            means = {name: row[name] for name in ("score_mean", "extractible_share")}
            rows.append({"ckpt": k, "tokens": grid.tokens[k], "group": group, **means})
    table = pd.DataFrame(rows, columns=["ckpt", "tokens", "group", "score_mean", "extractible_share"])
    table["ckpt"] = named(grid.ckpts, table["ckpt"])
    return table


def distribution(grid: Grid, chunks: str = "seen") -> pd.DataFrame:
    """Distribution of the memorization score over its l + 1 values for each checkpoint (Figure 7).

    `chunks` = "seen" takes, as the figure does, train sequences that the checkpoint has been trained on;
    the others are "not yet trained" and "held-out". Columns: ckpt, tokens, correct_tokens (0 ... l), score,
    sequences, share (of n; NaN if n = 0), n, extractible_share (the share at score 1, repeated on the
    checkpoint's rows): l + 1 rows per checkpoint.
    """
    grid.need_scores("distribution of scores")
    if chunks not in DISTRIBUTED:
        raise Analysis360Error(f"chunks must be one of {', '.join(DISTRIBUTED)}, got {chunks!r}")
    members = grid.members(DISTRIBUTED[chunks])
    counts = np.zeros((len(grid.ckpts), grid.length + 1), np.int64)
    for k in range(len(grid.ckpts)):
        counts[k] = grid.tally(k, members[k]).sum(axis=0)
    n = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, n, out=np.full(counts.shape, np.nan), where=n > 0)
    which, correct = np.indices(counts.shape).reshape(2, -1)
    return pd.DataFrame(
        {
            "ckpt": named(grid.ckpts, which),
            "tokens": grid.tokens[which],
            "correct_tokens": correct,
            "score": correct / grid.length,
            "sequences": counts.ravel(),
            "share": shares.ravel(),
            "n": n.ravel()[which],
            "extractible_share": shares[which, -1],
        }
    )


def chunk_groups(grid: Grid, intervals: bool | None = None, complete: bool = False) -> pd.DataFrame:
    """Mean score of each checkpoint on train chunks grouped by when they were first trained on (Figure 8).

    Group g holds the chunks first trained on after checkpoint g - 1 and by checkpoint g of those in the
    grid; the last group those not trained on by the last one.  Chunks of unknown exposure are left out.
    `latest` marks each checkpoint's last seen group that holds sequences.  Intervals resample chunks, or the
    sequences within chunks when `complete` (every train chunk of the series is in) or a group has one chunk;
    `intervals=False` leaves them NaN, and so does None beyond 40 checkpoints.  Columns: ckpt, tokens, group,
    group_label, group_tokens (trained by the group's end; NaN for the last), sequences, chunks, score_mean
    and extractible_share (each with _low, _high), score_interval, extractible_interval, seen, latest; a row
    per non-empty (ckpt, group).
    """
    known = grid.of_role("train") & ~np.isnan(grid.exposures)
    # a chunk belongs to the first checkpoint that has seen it; NaN here means never, as unknown ones are out
    first = np.where(np.isnan(grid.first_seen), np.inf, grid.first_seen)
    group = np.searchsorted(np.maximum.accumulate(grid.done), first)
    ends = np.append(grid.tokens, np.nan)
    bounds = len(grid.ckpts) <= 40 if intervals is None else intervals
    rows: list[dict[str, Any]] = []
    tallies = ((k, grid.tally(k, known[k])) for k in range(len(grid.ckpts)))
    for (k, counts), g in itertools.product(tallies, np.unique(group)):
        if row := measures(counts[group == g], complete, bounds, scored=grid.scored):
            rows.append({"ckpt": k, "tokens": grid.tokens[k], "group": g, "group_tokens": ends[g], **row})
    columns = ["ckpt", "tokens", "group", "group_label", "group_tokens", *MEASURES]
    table = pd.DataFrame(rows, columns=columns)
    table["group_label"] = named([f"by {name}" for name in grid.ckpts] + [NOT_TRAINED], table["group"])
    table["seen"] = table["group"] <= table["ckpt"]
    last = table["group"].where(table["seen"]).groupby(table["ckpt"]).transform("max")
    table["latest"] = table["group"] == last
    table["ckpt"] = named(grid.ckpts, table["ckpt"])
    return table


def _total(grid: Grid, role: str, chunks_in_series: Mapping[str, int]) -> int:
    """Distinct chunks of a role in the series, which cannot be fewer than were scored."""
    found = sum(has == role for has in grid.roles)
    if found and chunks_in_series.get(role, 0) < found:
        raise Analysis360Error(
            f"the frame holds {found} {role} chunks; chunks_in_series[{role!r}] must say how many there are, "
            f"got {chunks_in_series.get(role)}"
        )
    return chunks_in_series.get(role, 0)


def _complete(grid: Grid, k: int, counts: list[Any], totals: Mapping[str, int]) -> dict[str, bool]:
    """Of each group of text, whether checkpoint k was scored on every chunk that could be in it."""
    trained, untrained, held_out = (of_group.sum(axis=1) > 0 for of_group in counts[:3])
    # a chunk of unknown exposure could be in either group, so it leaves both incomplete
    all_train = bool((trained | untrained).sum() == totals["train"])
    # `done` positions hold at most as many distinct chunks, so seen chunks alone can be complete
    by_now = _trained_by(grid, k)
    return {
        GROUPS[0]: bool(trained.sum() >= grid.done[k] or (all_train and trained.sum() == by_now)),
        GROUPS[1]: bool(all_train and trained.sum() + untrained.sum() == totals["train"]),
        GROUPS[2]: bool(held_out.sum() == totals["held-out"]),
    }


def _trained_by(grid: Grid, k: int) -> int:
    """Chunks scored at checkpoint k that were first trained on by then."""
    here: Bools = grid.tally(k, grid.of_role("train")).sum(axis=1) > 0
    first: Floats = grid.first_seen
    return int((here & (first <= grid.done[k])).sum())
