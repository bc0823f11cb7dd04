"""A small series whose last checkpoint continues every row right for a known number of tokens, then errs once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from small_series import VOCABULARY, save_llama, small

K, L = 8, 32
RIGHT = np.array([*range(18), 30, 31, *[L] * 8])
"""Tokens right before the first miss, of the rows of a chunk."""
NOISE = (0.002, 0.001, 0.0)
"""Of each checkpoint's weights, a share: the earlier, the less it knows of the last one's text."""
TIE = 1e-4
"""Gap of the two best logits below which the order of a sum may change the choice."""


def recited(engine: Any, prompts: np.ndarray, right: np.ndarray, n: int = L) -> np.ndarray:
    """[rows, k + n] text of which the engine says the first `right` tokens, errs, and says what follows."""
    ids = np.concatenate([prompts, engine.generate(prompts, n)], axis=1)
    for row in np.flatnonzero(right < n):
        rest = prompts.shape[1] + right[row] + 1
        ids[row, rest - 1] = (ids[row, rest - 1] + 1) % VOCABULARY
        if rest < ids.shape[1]:
            ids[row, rest:] = engine.generate(ids[row : row + 1, :rest], ids.shape[1] - rest)[0]
    return ids


def least_gap(engine: Any, ids: np.ndarray, k: int = K) -> float:
    """The least gap of the two best logits up to each row's first miss."""
    forced = engine.forced(ids, k)
    right = np.minimum.accumulate(forced.hit, axis=1).sum(axis=1, keepdims=True)
    return float(forced.gap[np.arange(forced.gap.shape[1]) <= right].min())


def opened(folder: Path, kind: Any = None) -> Any:
    """A torch engine, or one of `kind`, with the checkpoint in a folder."""
    from analysis360.engines.torch_engine import TorchEngine
    from analysis360.places import LocalFolder
    from analysis360.series import Checkpoint

    engine = (kind or TorchEngine)("float32", "cpu")
    engine.load(Checkpoint(folder.name, 0, LocalFolder(folder)))
    return engine


def planted(root: Path) -> Path:
    """Fill a folder with three checkpoints, three chunks, two held-out chunks and three canaries."""
    import torch
    from safetensors.torch import load_file, save_file

    small(root, checkpoints=len(NOISE), chunks=len(NOISE), rows=len(RIGHT), name="planted")
    for i, noise in enumerate(NOISE):
        folder = root / f"checkpoints/ckpt_{i:03d}"
        save_llama(folder, seed=10, initializer_range=0.6)
        weights = load_file(folder / "model.safetensors")
        torch.manual_seed(i)
        moved = {name: value * (1 + noise * torch.randn_like(value)) for name, value in weights.items()}
        save_file(moved, folder / "model.safetensors", {"format": "pt"})
    last = opened(folder)
    for path in [*root.glob("*/*.jsonl"), root / "canaries.jsonl"]:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        prompts = np.array([row["token_ids"][:K] for row in rows], np.int32)
        text = recited(last, prompts, RIGHT if len(rows) > 3 else np.array([L, 9, 0]))
        for row, ids in zip(rows, text.tolist(), strict=True):
            row["token_ids"][: K + L] = ids
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root
