"""Small tidy tables of a result; `figures` draws them.

Text is summarized from a `Grid`, the compact form of a result or of its frame (`grid_of`); canaries, which are
few, from a frame of their rows.  Every share, score and interval bound is a fraction in [0, 1]; `tokens...`
columns count tokens; a `*_low` and `*_high` pair is a 95 % interval.  A chunk is *trained text* once its
sequences have been trained on, *not yet trained* while exposures are 0; unknown exposures (NaN) are neither.
Sequences without a score are left out. Where only extractibility is known, scores are NaN, and what is made of
scores alone raises Analysis360Error.
"""

from __future__ import annotations

from analysis360.summaries.canaries import canary_curves, control_check
from analysis360.summaries.columns import need_scores
from analysis360.summaries.correlations import Correlations, correlations
from analysis360.summaries.exposure import exposure_profile
from analysis360.summaries.grid import GROUPS, Block, Grid, grid_of
from analysis360.summaries.text import NOT_TRAINED, chunk_groups, distribution, mean_scores, summary

__all__ = [
    "GROUPS",
    "NOT_TRAINED",
    "Block",
    "Correlations",
    "Grid",
    "canary_curves",
    "chunk_groups",
    "control_check",
    "correlations",
    "distribution",
    "exposure_profile",
    "grid_of",
    "mean_scores",
    "need_scores",
    "summary",
]
