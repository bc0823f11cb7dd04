"""Summaries of likelihoods: loss, perplexity and bits per byte of whatever rows belong together, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis360 import statistics
from analysis360.errors import Analysis360Error
from analysis360.statistics import Interval
from analysis360.summaries.measures import RESAMPLES, bounds_of

SUMS = ("logprob", "targets", "eos_logprob", "eos_targets", "bytes")
COLUMNS = (
    *("windows", "documents", "targets", "loss", "loss_low", "loss_high"),
    *("perplexity", "perplexity_low", "perplexity_high"),
    *("loss_without_eos", "bits_per_byte", "interval"),
)
MOST = 2000
"""Documents that are drawn; of more the bounds are those of a normal, to which resamples come as near."""
ROWS = "rows"
"""What is resampled where everything else is all there is."""


def loss_summary(frame: pd.DataFrame, by: Sequence[str], sampled: str) -> pd.DataFrame:
    """A row per checkpoint and value of the columns `by`, over the rows that have one.

    `frame` has the columns ckpt, tokens, chunk, document, and the sums SUMS. `sampled` names what is a sample of
    more of its kind and is resampled whole: a column (`chunk`, `document`), or `rows`, within their chunks; where
    a group has one chunk or document, its rows. loss: nats a target, of all targets; perplexity: its exponential;
    loss_without_eos: of targets that are not EOS; bits_per_byte: what those take, over the bytes that they stand
    for, NaN where bytes are not known. The intervals, 95 %, are of loss and perplexity; `interval` names the
    method. Raises Analysis360Error on missing columns.
    """
    needed = ["ckpt", "tokens", "chunk", "document", *by, *SUMS]
    if missing := [name for name in needed if name not in frame.columns]:
        raise Analysis360Error(
            f"the frame lacks the columns {', '.join(missing)}; pass PerplexityResult.frame()"
        )
    keys = ["ckpt", *by]
    rows = []
    for key, part in frame.groupby(keys, sort=True, observed=True):
        found = dict(zip(keys, key, strict=True))
        rows.append({**found, "tokens": part["tokens"].iloc[0], **_measures(part, sampled)})
    table = pd.DataFrame(rows, columns=["ckpt", "tokens", *by, *COLUMNS])
    for name in keys:
        if isinstance(frame[name].dtype, pd.CategoricalDtype):
            table[name] = table[name].astype(frame[name].dtype)
    return table


def _measures(part: pd.DataFrame, sampled: str) -> dict[str, Any]:
    """The columns COLUMNS of some rows of one checkpoint."""
    logprob, targets, eos_logprob, eos_targets, sizes = (part[name].to_numpy(np.float64) for name in SUMS)
    loss = _interval(part, -logprob, targets, sampled)
    text, others = float((eos_logprob - logprob).sum()), float((targets - eos_targets).sum())
    value, low, high = (float(np.exp(x)) for x in (loss.value, loss.low, loss.high))
    return {
        "windows": len(part),
        "documents": int(part.groupby("chunk", observed=True)["document"].nunique().sum()),
        "targets": int(targets.sum()),
        **bounds_of("loss", loss),
        **bounds_of("perplexity", Interval(value, low, high, loss.n)),
        "loss_without_eos": text / others if others else np.nan,
        "bits_per_byte": text / np.log(2) / sizes.sum() if sizes.sum() > 0 else np.nan,
        "interval": loss.method,
    }


def _interval(part: pd.DataFrame, sums: Any, counts: Any, sampled: str) -> Interval:
    if sampled != ROWS:
        _, cluster = np.unique(_labels(part, sampled), return_inverse=True)
        if cluster.max() > 0:
            top, bottom = (np.bincount(cluster, weights=x) for x in (sums, counts))
            if cluster.max() < MOST:
                found = statistics.bootstrap_over_clusters(top, bottom, resamples=RESAMPLES)
            else:
                found = statistics.bootstrap_within_strata(top, bottom, np.zeros(len(top)))
            return Interval(found.value, found.low, found.high, found.n, f"bootstrap over {sampled}s")
    return statistics.bootstrap_within_strata(sums, counts, _labels(part, "chunk"), resamples=RESAMPLES)


def _labels(part: pd.DataFrame, name: str) -> Any:
    """[rows] which chunk, or which document of which chunk, each row is of."""
    chunk = pd.factorize(part["chunk"])[0].astype(np.int64)
    if name == "chunk":
        return chunk
    document = part["document"].to_numpy(np.int64)
    return chunk * (document.max() + 1) + document
