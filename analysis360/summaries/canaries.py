"""Summaries of canaries, from a frame of their rows: they are few."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis360 import statistics
from analysis360.errors import Analysis360Error
from analysis360.summaries.columns import (
    axis_of,
    hits_of,
    is_value,
    named,
    need_scores,
    only_extractible,
    require,
    scored,
)


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
        sequences=("extractible", "size"),
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
    table["ckpt"] = named(ckpts.names, table["ckpt"])
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
    need_scores(not only_extractible(frame), "check of canaries never planted against chance")
    if ordinary_ids < 1:
        raise Analysis360Error(f"ordinary_ids must be at least 1, got {ordinary_ids}")
    ckpts = axis_of(frame, "ckpt")
    kept = is_value(frame, "role", "canary") & (frame["repeats"] == 0).to_numpy(bool) & scored(frame)
    codes = ckpts.codes[kept]
    right = hits_of(frame["score"].to_numpy()[kept], continuation_tokens)
    hits = np.bincount(codes, weights=right, minlength=len(ckpts)).astype(np.int64)
    n = np.bincount(codes, minlength=len(ckpts)) * continuation_tokens
    bounds = [statistics.binomial_interval(int(total), 1 / ordinary_ids, level) for total in n]
    low, high = np.array(bounds, np.int64).reshape(-1, 2).T
    table = pd.DataFrame(
        {
            "ckpt": named(ckpts.names, np.arange(len(ckpts))),
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
