"""What people do without this library, in the few lines they would write. Nothing here is ours.

Where a peer's defaults would compute something else (vLLM makes bfloat16 of float32 on its own) or would
reserve a share of the machine's memory, the option that a careful user sets is set, to the peer's advantage.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

BATCHES = (32, 64, 128, 256, 512, 1000)


def transformers_generate(model: Any, ids: Any, n: int, batch: int) -> Any:
    """Greedy continuation [rows, n] in batches, EOS forbidden by min_length as the published code does."""
    import torch

    options = {"min_length": ids.shape[1] + n, "max_new_tokens": n, "do_sample": False, "pad_token_id": 0}
    with torch.inference_mode():
        out = [
            model.generate(part, attention_mask=torch.ones_like(part), **options) for part in ids.split(batch)
        ]
    return torch.cat(out)[:, ids.shape[1] :].numpy()


def best_batch(model: Any, ids: Any, n: int) -> int:
    """The batch size with the most sequences a second, tried on one batch of each."""
    rates = {}
    for batch in BATCHES:
        if batch <= len(ids):
            began = time.perf_counter()
            transformers_generate(model, ids[:batch], n, batch)
            rates[batch] = batch / (time.perf_counter() - began)
    return max(rates, key=lambda batch: rates[batch]) if rates else len(ids)


def generate_at_best(folder: str, ids: str, n: int) -> Callable[[], dict[str, Any]]:
    """transformers `generate` at its best batch size, the model loaded once."""
    import numpy as np
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    prompts = torch.from_numpy(np.load(ids)).long()
    transformers_generate(model, prompts[:32], n, 32)  # warm
    batch = best_batch(model, prompts, n)
    return lambda: {"ids": transformers_generate(model, prompts, n, batch), "batch": batch}


def vllm(folder: str, **options: Any) -> Any:
    """A vLLM engine with defaults but for what is said."""
    os.environ |= {"OMP_NUM_THREADS": str(os.cpu_count()), "VLLM_CPU_KVCACHE_SPACE": "2"}
    from vllm import LLM

    bare = not (Path(folder) / "tokenizer.json").exists()
    return LLM(model=folder, dtype="float32", skip_tokenizer_init=bare, **options)


def vllm_generate(engine: Any, prompts: Sequence[Sequence[int]], n: int) -> list[list[int]]:
    """All prompts in one call."""
    from vllm import SamplingParams

    params = SamplingParams(temperature=0.0, max_tokens=n, ignore_eos=True)
    outputs = engine.generate([{"prompt_token_ids": list(row)} for row in prompts], params, use_tqdm=False)
    return [list(output.outputs[0].token_ids) for output in outputs]


def naive_vllm(folder: str, ids: str, n: int) -> Callable[[], dict[str, Any]]:
    """A script's vLLM, compiled as by default, the engine warm."""
    import numpy as np

    engine, prompts = vllm(folder), np.load(ids).tolist()
    return lambda: {"ids": vllm_generate(engine, prompts, n)}


def read_chunk(path: Path) -> list[list[int]]:
    """The chunk whole, a line at a time."""
    return [json.loads(line)["token_ids"] for line in path.open()]


def published(
    folder: str, pairs: Sequence[tuple[str, str]], sequences: int, k: int, n: int
) -> dict[str, Any]:
    """For every (checkpoint, chunk) pair: the model loaded, the chunk read, `generate` at batch 32.

    Returns the seconds of each pair, imports apart.
    """
    import random

    import torch
    from transformers import AutoModelForCausalLM

    seconds = []
    for checkpoint, chunk in pairs:
        began = time.perf_counter()
        model = AutoModelForCausalLM.from_pretrained(Path(folder) / checkpoint, dtype=torch.float32)
        rows = random.Random(42).sample(read_chunk(Path(folder) / chunk), sequences)
        ids = torch.tensor(rows)[:, : k + n]
        out = transformers_generate(model, ids[:, :k], n, 32)
        (torch.from_numpy(out) == ids[:, k:]).float().mean(dim=1).tolist()
        seconds.append(time.perf_counter() - began)
    return {"pairs": seconds}


def careful(
    folder: str, checkpoint: str, chunks: Sequence[str], sequences: int, k: int, n: int
) -> dict[str, Any]:
    """One checkpoint in a process of its own: a fresh engine, in process, eager (the quicker start), one call."""
    import random

    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    rows = []
    for chunk in chunks:
        rows += random.Random(42).sample(read_chunk(Path(folder) / chunk), sequences)
    engine = vllm(str(Path(folder) / checkpoint), enforce_eager=True, max_model_len=k + n + 1)
    out = vllm_generate(engine, [row[:k] for row in rows], n)
    right = [sum(map(int.__eq__, said, row[k:])) / n for said, row in zip(out, rows, strict=True)]
    return {"mean": sum(right) / len(right)}
