"""The slow truth: transformers' own `generate`, one sequence at a time, and log-softmax by hand in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

TIE = 1e-3
"""Logit gap up to which two ids count as tied: float32 rounding may choose either."""


class Continuation(NamedTuple):
    ids: np.ndarray
    """[n, l] greedy continuation."""
    gap: np.ndarray
    """[n, l] logit of the chosen id minus that of the second, along the path taken."""

    @property
    def clear(self) -> np.ndarray:
        """[n] sequences that never came within TIE of another choice."""
        return self.gap.min(axis=1) > TIE


class Scores(NamedTuple):
    logprob: np.ndarray
    hit: np.ndarray
    gap: np.ndarray


def open_model(folder: Path, dtype: torch.dtype = torch.float32, attention: str = "eager") -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation=attention).eval()


@torch.no_grad()
def continue_greedily(folder: Path, prompts: np.ndarray, n: int) -> Continuation:
    """Greedy, batch of one, past EOS without forbidding it."""
    model = open_model(folder)
    # Not the one of the checkpoint: it may name an EOS or a penalty.
    model.generation_config = GenerationConfig(do_sample=False, eos_token_id=None, pad_token_id=0)
    ids, gaps = [], []
    for prompt in torch.from_numpy(prompts.astype(np.int64)):
        out = model.generate(
            input_ids=prompt[None],
            attention_mask=torch.ones_like(prompt)[None],
            max_new_tokens=n,
            return_dict_in_generate=True,
            output_logits=True,
        )
        best = torch.cat(out.logits).double().topk(2, dim=-1).values
        ids.append(out.sequences[0, len(prompt) :].numpy())
        gaps.append((best[:, 0] - best[:, 1]).numpy())
    return Continuation(np.stack(ids).astype(np.int32), np.stack(gaps))


@torch.no_grad()
def score(folder: Path, ids: np.ndarray, start: int) -> Scores:
    """What the model says of the ids at positions start .. width - 1; one full pass a sequence, all in float64."""
    model = open_model(folder, torch.float64)
    rows = []
    for row in ids.astype(np.int64):
        logits = model(input_ids=torch.from_numpy(row)[None], use_cache=False).logits[0].numpy()
        columns = []
        for position in range(start, len(row)):
            before = logits[position - 1]
            ordered = np.sort(before)
            logprob = before[row[position]] - ordered[-1] - np.log(np.exp(before - ordered[-1]).sum())
            columns.append((logprob, before.argmax() == row[position], ordered[-1] - ordered[-2]))
        rows.append(columns)
    logprob, hit, gap = np.moveaxis(np.array(rows), -1, 0)
    return Scores(logprob, hit.astype(bool), gap)
