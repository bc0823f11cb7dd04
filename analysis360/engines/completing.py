"""Completions by any causal model of transformers: prompts of unequal lengths, side by side."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from analysis360.engines import Prompt
from analysis360.engines.sampling import choose, uniforms
from analysis360.engines.stopping import Ending

ROWS, TOKENS = 256, 2**15
"""Of a batch, at most: rows, and ids with their padding, those still to be made among them."""
LIVE = 0.75
"""Share of a batch's rows below which those that have ended are dropped: dropping copies the cache."""


def complete(model: Any, prompts: Sequence[Prompt], tokenizer: Tokenizer | None) -> list[tuple[int, ...]]:
    """The ids that continue each prompt; equal prompts are computed once. See `Engine.complete`."""
    made: dict[Prompt, tuple[int, ...]] = {}
    for batch in batches(list(dict.fromkeys(prompts))):
        made.update(zip(batch, _complete(model, batch, tokenizer), strict=True))
    return [made[prompt] for prompt in prompts]


def batches(prompts: Sequence[Prompt]) -> Iterator[list[Prompt]]:
    """Prompts of like lengths together, the longest first: what does not fit memory fails at once."""
    batch: list[Prompt] = []
    longest = most = 0
    for prompt in sorted(prompts, key=lambda prompt: -len(prompt.ids)):
        length = longest or len(prompt.ids)
        if batch and (len(batch) == ROWS or (len(batch) + 1) * (length + max(most, prompt.most)) > TOKENS):
            yield batch
            batch, most, length = [], 0, len(prompt.ids)
        batch, longest, most = [*batch, prompt], length, max(most, prompt.most)
    if batch:
        yield batch


def _complete(model: Any, prompts: Sequence[Prompt], tokenizer: Tokenizer | None) -> list[tuple[int, ...]]:
    made: list[list[int]] = [[] for _ in prompts]
    endings = [Ending(prompt, tokenizer) for prompt in prompts]
    steps = max(prompt.most for prompt in prompts)
    u = np.stack([uniforms(prompt.sampling.seed, steps) for prompt in prompts])
    decoding = Decoding(model, prompts)
    rows = list(range(len(prompts)))
    """The prompt that each row of the batch continues."""
    live = set(rows)
    for step in range(steps):
        tokens = choose(decoding.logits(), [prompts[row].sampling for row in rows], u[rows, step])
        for row, token in zip(rows, tokens.tolist(), strict=True):
            if row in live:
                made[row].append(token)
                if endings[row].after(token):
                    live.remove(row)
        if not live:
            break
        decoding.append(tokens)
        if len(live) <= LIVE * len(rows):
            decoding.keep([i for i, row in enumerate(rows) if row in live])
            rows = [row for row in rows if row in live]
    return [tuple(ids) for ids in made]


class Decoding:
    """A batch under way: what the model reads next, and the cache of what it has read."""

    def __init__(self, model: Any, prompts: Sequence[Prompt]) -> None:
        self._model = model
        self._cache: Any = None
        self._placed = "position_ids" in inspect.signature(model.forward).parameters
        longest = max(len(prompt.ids) for prompt in prompts)
        tokens, mask = (np.zeros((len(prompts), longest), np.int64) for _ in range(2))
        for row, prompt in enumerate(prompts):
            tokens[row, longest - len(prompt.ids) :] = prompt.ids
            mask[row, longest - len(prompt.ids) :] = 1
        self._tokens, self._mask = (torch.from_numpy(array).to(model.device) for array in (tokens, mask))
        self._positions = (self._mask.cumsum(dim=-1) - 1).clamp(min=0)

    def logits(self) -> Tensor:
        """[rows, vocabulary] of the id that follows each row."""
        placed = {"position_ids": self._positions} if self._placed else {}
        result = self._model(
            input_ids=self._tokens,
            attention_mask=self._mask,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
            **placed,
        )
        self._cache = result.past_key_values
        logits: Tensor = result.logits[:, -1]
        return logits

    def append(self, tokens: Tensor) -> None:
        """Go on with [rows] ids."""
        self._tokens = tokens[:, None]
        self._mask = torch.cat([self._mask, torch.ones_like(self._tokens)], dim=1)
        self._positions = self._positions[:, -1:] + 1

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all other rows."""
        index = torch.tensor(rows, device=self._tokens.device)
        self._tokens, self._mask, self._positions = (
            tensor[index] for tensor in (self._tokens, self._mask, self._positions)
        )
        self._cache.reorder_cache(index)
