"""A made-up result frame whose truth is known: a row per checkpoint and sequence, columns as `Result.frame()`."""

from __future__ import annotations

import numpy as np
import pandas as pd

TOKENS_PER_CHUNK = 3.5e9
REPEATS = (0, 1, 4, 16, 64)


def make_frame(
    checkpoints: int = 9,
    chunks: int = 36,
    sequences: int = 40,
    held_out: int = 3,
    canaries: int = 6,
    length: int = 32,
    unknown: int = 0,
    seed: int = 0,
) -> pd.DataFrame:
    """Score = skill that grows + hardness + recency; `unknown` of the chunks have unknown exposure."""
    rng = np.random.default_rng(seed)
    done = np.round(np.linspace(chunks / checkpoints, chunks, checkpoints))
    done[-1] -= chunks > checkpoints  # one chunk stays unseen
    names = [f"ckpt_{int(d):03d}" for d in done]
    parts = []
    for c in range(chunks + held_out):
        role = "train" if c < chunks else "held-out"
        name = f"train_{c:03d}" if c < chunks else f"held_{c - chunks}"
        hard = rng.beta(0.5, 3.0, sequences)
        first = float(c + 1) if role == "train" and c >= unknown else np.nan
        gap = done[:, None] - first
        seen = gap >= 0
        recency = np.where(seen, 0.12 * np.exp(-np.where(seen, gap, 0) / 2), 0.0)
        chance = np.clip(hard * (0.3 + 0.5 * done[:, None] / chunks) + recency, 0, 1)
        score = rng.binomial(length, chance) / length
        known_by_heart = np.where(seen, np.floor(sequences * 0.02 * done[:, None] / chunks + 0.5), 0)
        score[np.arange(sequences) < known_by_heart] = 1
        exposures = seen.astype(float) if c >= unknown else np.full(seen.shape, np.nan)
        since = np.where(seen, gap * TOKENS_PER_CHUNK, np.nan)
        parts.append(_part(names, done, name, role, score, exposures, first, since, rng))
    parts += _canaries(names, done, chunks, canaries, length, rng)
    frame = pd.concat(parts, ignore_index=True)
    order = [f"train_{c:03d}" for c in range(chunks)] + [f"held_{c}" for c in range(held_out)]
    frame["ckpt"] = pd.Categorical(frame["ckpt"], ["ckpt_none", *names], ordered=True)
    frame["chunk"] = pd.Categorical(frame["chunk"], [*order, "unused", "canaries"], ordered=True)
    frame["role"] = pd.Categorical(frame["role"], ["train", "held-out", "canary"])
    frame["spacing"] = pd.Categorical(frame["spacing"], ["even", "chunk", "never"])
    frame["source"] = pd.Categorical(["web"] * len(frame))
    return frame.astype(
        {"score": "float32", "score_in_document": "float32", "exposures": "float32", "repeats": "float32"}
    )


def _part(names, done, chunk, role, score, exposures, first, since, rng, **more):
    """Rows of one chunk at every checkpoint: `score` is [checkpoints, sequences], the rest fits beside it."""
    n = score.shape[1]
    columns = {
        "ckpt": np.array(names)[:, None],
        "tokens": done[:, None] * TOKENS_PER_CHUNK,
        "chunk": chunk,
        "role": role,
        "position": np.arange(n, dtype=np.int32),
        "row": np.arange(n) * 7,
        "exposures": exposures,
        "first_seen": first,
        "done": done[:, None],
        "tokens_since": since,
        "score": score,
        "score_in_document": np.where(rng.random(score.shape) < 0.1, np.nan, score),
        "extractible": score == 1,
        "exact_prefix": np.int16(0),
        "repeats": np.nan,
        "spacing": None,
        "planted_first": np.nan,
        **more,
    }
    return pd.DataFrame({name: np.broadcast_to(x, score.shape).ravel() for name, x in columns.items()})


def _canaries(names, done, chunks, each, length, rng):
    """`each` canaries for every repeat count and spacing; those planted in one chunk are planted halfway."""
    kinds = [(r, s) for r in REPEATS[1:] for s in ("even", "chunk")] + [(0, "never")]
    repeats = np.repeat([r for r, _ in kinds], each)
    spacing = np.repeat([s for _, s in kinds], each)
    halfway = chunks // 2 + 1.0
    d = done[:, None]
    planted = np.where(spacing == "even", np.floor(repeats * d / chunks), np.where(d >= halfway, repeats, 0))
    recall = 1 / (1 + np.exp(-(planted - 20) / 5)) * np.where(spacing == "even", 1, 0.7)
    score = rng.binomial(length, np.where(planted > 0, recall, 1 / 2000)) / length
    first = np.where(spacing == "even", np.ceil(chunks / np.maximum(repeats, 1)), halfway)
    first = np.where(repeats > 0, first, np.nan)
    more = {"repeats": repeats, "spacing": spacing, "planted_first": first}
    return [_part(names, done, "canaries", "canary", score, planted, first, np.nan, rng, **more)]
