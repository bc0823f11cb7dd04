"""Models and series for the benchmarks; the functions that need torch are called in processes of their own."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness import ROOT, once

if TYPE_CHECKING:
    from training.config import Recipe

SEVEN = {"hidden_size": 256, "intermediate_size": 704, "num_attention_heads": 4, "num_key_value_heads": 4}
DEMO = {"hidden_size": 192, "intermediate_size": 512, "num_attention_heads": 6, "num_key_value_heads": 6}
SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2, "num_key_value_heads": 2}


def random_llama(folder: str, seed: int = 0, **config: int | bool) -> None:
    """A Llama with random weights; the scale gives clear choices, so that rounding changes few of them."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    shape = {"max_position_embeddings": 256, "initializer_range": 0.1, **config}
    LlamaForCausalLM(LlamaConfig(**shape)).save_pretrained(folder)


def seven_million(folder: Path, seed: int = 0, *, tied: bool = False) -> Path:
    """6.9 M parameters; tied, the vocabulary is twice as large, so that they are as many."""
    shape = {**SEVEN, "num_hidden_layers": 6, "vocab_size": 8192 if tied else 4096}
    once(random_llama, folder=str(folder), seed=seed, tie_word_embeddings=tied, **shape)()
    return folder


def altered(source: str, folder: str, copies: int = 1) -> None:
    """Copies of a model, folder/000 and so on, each with one tensor a little different: another content."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(Path(source) / "model.safetensors")
    name = next(name for name in tensors if name.endswith("down_proj.weight"))
    original = tensors[name].clone()
    for i in range(copies):
        place = Path(folder) / f"{i:03d}"
        place.mkdir(parents=True)
        shutil.copy(Path(source) / "config.json", place)
        tensors[name] = original * (1 + (i + 1) / 1000)
        save_file(tensors, place / "model.safetensors", {"format": "pt"})


def write_chunk(path: Path, seed: int, rows: int, row_tokens: int, vocabulary: int) -> None:
    """JSON lines of random ids."""
    import numpy as np

    path.parent.mkdir(parents=True, exist_ok=True)
    ids = np.random.default_rng(seed).integers(1, vocabulary, (rows, row_tokens)).tolist()
    path.write_text("".join(json.dumps({"token_ids": row, "source": "random"}) + "\n" for row in ids))


def write_manifest(folder: Path, name: str, checkpoints: int, chunks: int, row_tokens: int) -> None:
    """checkpoints/000 ... and train/000.jsonl ..., no controls, no exposure."""
    (folder / "series.toml").write_text(
        f'manifest = 1\nname = "{name}"\n[model]\ncompute_dtype = "float32"\n'
        f'[checkpoints]\npath = "checkpoints/{{index:03d}}"\ncount = {checkpoints}\n'
        f'[data]\npath = "train/{{index:03d}}.jsonl"\ncount = {chunks}\nrow_tokens = {row_tokens}\n'
    )


def demo_series(folder: Path, checkpoints: int = 36, chunks: int = 36) -> str:
    """What `make demo` trained, its checkpoints and chunks alone; random ones of that shape where it is not there.

    Returns which of the two it is.
    """
    made = ROOT / "runs/demo/tiny"
    trained = all((made / f"checkpoints/ckpt_{i:03d}/model.safetensors").exists() for i in range(checkpoints))
    write = {"rows": 128, "row_tokens": 129, "vocabulary": 2048}
    for name in ("checkpoints", "train"):
        (folder / name).mkdir(parents=True)
    if not trained:
        once(random_llama, folder=str(folder / "model"), num_hidden_layers=4, vocab_size=2048, **DEMO)()
        where = {"source": str(folder / "model"), "folder": str(folder / "checkpoints")}
        once(altered, **where, copies=checkpoints)()
    for i in range(checkpoints if trained else 0):
        (folder / f"checkpoints/{i:03d}").symlink_to(made / f"checkpoints/ckpt_{i:03d}")
    for i in range(chunks):
        chunk = made / f"data/train/train_{i:03d}.jsonl"
        if trained:
            (folder / f"train/{i:03d}.jsonl").symlink_to(chunk)
        else:
            write_chunk(folder / f"train/{i:03d}.jsonl", i, **write)
    write_manifest(folder, "bench", checkpoints, chunks, 129)
    return "the demo series" if trained else "random models of the demo's shape"


def training_recipes(chunks: int, rows: int) -> list[Recipe]:
    """`tiny` with fewer chunks and nothing planted, and a larger model on the same rows."""
    from training.config import Canaries, Model, Rate, Stage, Take
    from training.recipes import tiny

    whole = tiny()
    takes = tuple(Take(take.source, weight=take.tokens) for take in whole.mix.stages[0].takes)
    stages = (Stage("all", chunks, takes),)
    mix = replace(whole.mix, stages=stages, rows=rows, canaries=Canaries(), held_out_chunks=1)
    larger = Model(hidden=256, layers=8, heads=4, intermediate=608, vocabulary=2048)
    found = []
    for model, batch, peak in ((whole.model, whole.loop.batch, 5e-3), (larger, 8, 2e-3)):
        rate = Rate(peak, last=peak / 10, warm_up=chunks * rows // batch // 8)
        loop = replace(whole.loop, batch=batch, rates=(rate,))
        found.append(replace(whole, mix=mix, model=model, loop=loop))
    return found


def joined(prepared: Path, folder: Path, recipe: Recipe, chunks: int) -> str:
    """A copy of a prepared folder whose first chunks are one, for a recipe of the same mix."""
    from training.records import as_json
    from training.series import RECIPE, REPORT, TRAIN

    shutil.copytree(prepared, folder)
    rows = "".join((prepared / TRAIN.format(index=i)).read_text() for i in range(chunks))
    (folder / TRAIN.format(index=0)).write_text(rows)
    report = json.loads((folder / REPORT).read_text())
    report["files"][TRAIN.format(index=0)] = hashlib.sha256(rows.encode()).hexdigest()
    (folder / REPORT).write_text(json.dumps(report))
    stages = (replace(recipe.mix.stages[0], chunks=1),)
    one = replace(recipe, mix=replace(recipe.mix, stages=stages, rows=chunks * recipe.mix.rows))
    (folder / RECIPE).write_text(json.dumps(as_json(one)))
    return str(folder)
