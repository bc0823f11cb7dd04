"""The training loop, top to bottom: rows in, checkpoints out.

Everything follows from the recipe's seed and the position: rows are taken in file order, chunk by chunk, and
a run that was killed goes on from its last checkpoint with the same bits.
"""

import json
import math
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

from training.errors import TrainingError
from training.files import folder_aside, write_aside
from training.recipes import Loop, Model, Recipe
from training.series import CHECKPOINT, METRICS, TOKENIZER, TRAIN, write_manifest
from training.tokenizer import EOS_ID

__all__ = ["learning_rate", "new_model", "row_loss", "train"]

_OPTIMIZER = "optimizer/opt_{index:03d}.pt"


def train(out: Path, recipe: Recipe, report: dict[str, Any], done: int) -> None:
    """Train the chunks after the first `done`; a checkpoint and the manifest follow each."""
    torch.set_num_threads(recipe.loop.threads)
    torch.manual_seed(recipe.seed)
    model = new_model(recipe.model, recipe.data.vocabulary)
    optimizer = new_optimizer(model, recipe.loop)
    if done:
        restore(out, done - 1, model, optimizer)
    bar = tqdm(total=recipe.steps, initial=done * recipe.chunk_steps, unit="step", desc=recipe.name)
    with bar, open_metrics(out / METRICS, done * recipe.chunk_steps) as metrics:
        for chunk in range(done, recipe.data.chunks):
            for line in train_chunk(out, recipe, chunk, model, optimizer):
                metrics.write(json.dumps(line) + "\n")
                metrics.flush()
                bar.set_postfix(ckpt=chunk, loss=f"{line['loss']:.2f}", refresh=False)
                bar.update()
            save(out, chunk, model, optimizer, recipe.loop)
            write_manifest(out, recipe, report, chunk + 1)


def train_chunk(
    out: Path, recipe: Recipe, chunk: int, model: LlamaForCausalLM, optimizer: torch.optim.Optimizer
) -> Iterator[dict[str, float]]:
    """Train on one chunk; a line of metrics for each step."""
    loop = recipe.loop
    rows = read_rows(out / TRAIN.format(index=chunk))  # [rows, row_tokens]
    for index, batch in enumerate(torch.split(rows, loop.batch)):
        start = time.perf_counter()
        step = chunk * recipe.chunk_steps + index
        rate = learning_rate(step, recipe.steps, loop)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = row_loss(model, batch)
        torch.autograd.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), loop.clip)
        if not math.isfinite(norm.item()):
            where = f"chunk {chunk}, step {step}"
            fix = "lower Loop.peak in the recipe"
            raise TrainingError(where, expected="a finite gradient", found=f"loss {loss.item()}", fix=fix)
        optimizer.step()
        optimizer.zero_grad()
        yield {
            "step": step,
            "chunk": chunk,
            "tokens": (step + 1) * batch[:, 1:].numel(),
            "loss": loss.item(),
            "learning_rate": rate,
            "gradient_norm": norm.item(),
            "seconds": round(time.perf_counter() - start, 4),
        }


def row_loss(model: LlamaForCausalLM, rows: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy, in nats, of ids 1 to L of rows [B, L + 1] given the ids before each."""
    logits = model(input_ids=rows[:, :-1], use_cache=False).logits  # [B, L, vocabulary]
    return cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())


def learning_rate(step: int, steps: int, loop: Loop) -> float:
    """A linear rise to the peak, then half a cosine down to the floor at the last step."""
    if step < loop.warm_up:
        return loop.peak * (step + 1) / loop.warm_up
    progress = (step + 1 - loop.warm_up) / (steps - loop.warm_up)
    return loop.peak * (loop.floor + (1 - loop.floor) * 0.5 * (1 + math.cos(math.pi * progress)))


def read_rows(path: Path) -> torch.Tensor:
    """Ids [rows, row_tokens] of a chunk, in file order."""
    with path.open(encoding="utf-8") as file:
        return torch.tensor([json.loads(line)["token_ids"] for line in file])


def new_model(shape: Model, vocabulary: int) -> LlamaForCausalLM:
    """A Llama with random weights from torch's seed: fp32, the head apart from the embeddings."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.intermediate,
        max_position_embeddings=shape.positions,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=EOS_ID,
        dtype="float32",
        architectures=["LlamaForCausalLM"],
    )
    return LlamaForCausalLM(config)


def new_optimizer(model: LlamaForCausalLM, loop: Loop) -> torch.optim.Optimizer:
    """AdamW over all parameters; the loop sets the learning rate before each step."""
    return torch.optim.AdamW(
        model.parameters(), lr=loop.peak, betas=loop.betas, weight_decay=loop.weight_decay, fused=True
    )


def save(
    out: Path, index: int, model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, loop: Loop
) -> None:
    """Optimiser first, checkpoint last: a checkpoint that exists can be continued from."""
    state = out / _OPTIMIZER.format(index=index)
    partial = state.with_name(f".{state.name}.partial")
    partial.parent.mkdir(exist_ok=True)
    with partial.open("wb") as handle:
        torch.save(optimizer.state_dict(), handle)
        handle.flush()
        os.fsync(handle.fileno())  # the checkpoint that follows vouches for it
    partial.replace(state)
    with folder_aside(out / CHECKPOINT.format(index=index)) as folder:
        save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
        model.config.save_pretrained(folder)
        for file in (out / TOKENIZER).glob("*.json"):
            shutil.copyfile(file, folder / file.name)
    every = loop.keep_optimizer_every
    for old in range(index):
        if not every or (old + 1) % every:
            (out / _OPTIMIZER.format(index=old)).unlink(missing_ok=True)


def restore(out: Path, index: int, model: LlamaForCausalLM, optimizer: torch.optim.Optimizer) -> None:
    """Bring back weights and optimiser as they were after a chunk, bit by bit."""
    weights = out / CHECKPOINT.format(index=index) / "model.safetensors"
    state = out / _OPTIMIZER.format(index=index)
    for path in (weights, state):
        if not path.exists():
            fix = "put it back, or train in another folder"
            raise TrainingError(path, expected="what the last checkpoint saved", found="no file", fix=fix)
    model.load_state_dict(load_file(weights))
    optimizer.load_state_dict(torch.load(state, weights_only=True))


def open_metrics(path: Path, steps: int) -> TextIO:
    """The metrics, open for more lines after the first `steps`; lines of a chunk that was cut short go."""
    lines = path.read_text("utf-8").splitlines(keepends=True)[:steps] if path.exists() else []
    if len(lines) < steps:
        fix = "put it back, or train in another folder"
        raise TrainingError(path, expected=f"{steps} lines at least", found=str(len(lines)), fix=fix)
    write_aside(path, "".join(lines).encode())
    return path.open("a", encoding="utf-8")
