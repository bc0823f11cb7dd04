"""Releases to audit: weights that drift as in training, two shards a checkpoint, every file a real one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from small_series import MANIFEST, write_rows

CHECKPOINTS, CHUNKS, ROWS = 8, 8, 12
WIDE, LAYERS = 96, 4
CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 96, "hidden_size": WIDE}
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def release(root: Path, **size: int) -> Path:
    """Fill a folder with a series of drifting checkpoints, data, held-out text and canaries."""
    checkpoints, chunks = size.get("checkpoints", CHECKPOINTS), size.get("chunks", CHUNKS)
    for i in range(checkpoints):
        write_checkpoint(root / f"checkpoints/ckpt_{i:03d}", i)
    for i in range(chunks):
        write_rows(root / f"train/train_{i:03d}.jsonl", ROWS, 100 + i)
    for i in range(2):
        write_rows(root / f"held-out/held-out_{i:03d}.jsonl", ROWS, 200 + i)
    write_rows(root / "canaries.jsonl", 3, 300, "canary")
    order, done = list(range(chunks)), [min(i + 1, chunks) for i in range(checkpoints)]
    at = {"name": "drift", "checkpoints": checkpoints, "chunks": chunks, "second": 2, "one": 1}
    (root / "series.toml").write_text(MANIFEST.format(order=order, done=done, **at))
    return root


def write_checkpoint(folder: Path, step: int, dtype: Any = np.float32, **config: Any) -> None:
    """The state after so many steps: a straight drift and a random walk, the same for every dtype."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.astype(dtype) for name, value in state(step).items()}
    names = sorted(tensors)
    halves = (names[: len(names) // 2], names[len(names) // 2 :])
    for shard, half in zip(SHARDS, halves, strict=True):
        save_file({name: tensors[name] for name in half}, folder / shard)
    index = {name: shard for shard, half in zip(SHARDS, halves, strict=True) for name in half}
    total = sum(tensor.nbytes for tensor in tensors.values())
    write_json(
        folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": index}
    )
    write_json(folder / "config.json", {**CONFIG, **config})
    write_json(folder / "tokenizer.json", {"model": {"vocab": {"a": 0, "b": 1}}})


def state(step: int) -> dict[str, np.ndarray]:
    """Weights after so many steps."""
    rng = np.random.default_rng(7)
    names = [f"model.layers.{i}.{part}.weight" for i in range(LAYERS) for part in ("mlp", "self_attn")]
    start, drift = ({n: rng.normal(size=(WIDE, WIDE)) for n in names} for _ in range(2))
    walk = {n: np.zeros((WIDE, WIDE)) for n in names}
    for _ in range(step):
        for n in names:
            walk[n] += rng.normal(size=(WIDE, WIDE))
    return {n: start[n] + 0.02 * (step * drift[n] + walk[n]) for n in names}


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))


def checkpoint(root: Path, i: int) -> Path:
    return root / f"checkpoints/ckpt_{i:03d}"


def chunk(root: Path, i: int) -> Path:
    return root / f"train/train_{i:03d}.jsonl"
