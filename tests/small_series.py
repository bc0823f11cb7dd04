"""Series made on the spot: tiny random Llamas, rows of random ids, everything real but the size."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

VOCABULARY = 96
EOS = 0
ROW_TOKENS = 72

MANIFEST = """
manifest = 1
name = "{name}"
[model]
eos_token_id = 0
[checkpoints]
path = "checkpoints/ckpt_{{index:03d}}"
count = {checkpoints}
[data]
path = "train/train_{{index:03d}}.jsonl"
count = {chunks}
[held_out]
path = "held-out/held-out_{{index:03d}}.jsonl"
count = 2
[canaries]
path = "canaries.jsonl"
ordinary_ids = 95
[[canaries.rows]]
row = 0
repeats = 2
spacing = "even"
planted = [[0, 1], [{second}, 1]]
[[canaries.rows]]
row = 1
repeats = 2
spacing = "chunk"
planted = [[{one}, 2], [{one}, 5]]
[[canaries.rows]]
row = 2
repeats = 0
spacing = "never"
[exposure]
order = {order}
done = {done}
tokens_per_chunk = 780
"""

MakeSeries = Callable[..., Path]


def write_rows(path: Path, rows: int, seed: int, source: str = "text") -> None:
    """A chunk of random ids, EOS among them."""
    ids = np.random.default_rng(seed).integers(0, VOCABULARY, (rows, ROW_TOKENS)).tolist()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"token_ids": row, "source": source}) + "\n" for row in ids))


def save_llama(folder: Path, seed: int, **config: Any) -> None:
    """A random Llama with peaked logits, so that near-ties are rare."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    shape = {"vocab_size": VOCABULARY, "intermediate_size": 64, "max_position_embeddings": 128, **size}
    torch.manual_seed(seed)
    LlamaForCausalLM(LlamaConfig(**{**shape, "initializer_range": 0.3, **config})).save_pretrained(folder)


def small(
    root: Path, checkpoints: int = 4, chunks: int = 4, rows: int = 12, name: str = "small", seed: int = 0
) -> Path:
    """Fill a folder with a whole series."""
    for i in range(checkpoints):
        save_llama(root / f"checkpoints/ckpt_{i:03d}", seed + i)
    for i in range(chunks):
        write_rows(root / f"train/train_{i:03d}.jsonl", rows, 100 + seed + i)
    for i in range(2):
        write_rows(root / f"held-out/held-out_{i:03d}.jsonl", rows, 200 + seed + i)
    write_rows(root / "canaries.jsonl", 3, 300 + seed, "canary")
    order, done = [i % chunks for i in range(checkpoints)], list(range(1, checkpoints + 1))
    at = {"second": min(2, chunks - 1), "one": min(1, chunks - 1)}
    text = MANIFEST.format(name=name, checkpoints=checkpoints, chunks=chunks, order=order, done=done, **at)
    (root / "series.toml").write_text(text)
    return root
