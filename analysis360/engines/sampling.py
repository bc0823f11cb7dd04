"""The next id: the most probable one, or a draw that a seed and a step fix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from analysis360.engines import Sampling


def uniforms(seed: int, steps: int) -> NDArray[np.float64]:
    """[steps] a number in [0, 1) for each step; of a counter-based generator, so the first ones are always the same."""
    return np.random.Generator(np.random.Philox(key=seed)).random(steps)


def choose(logits: Tensor, samplings: Sequence[Sampling], u: NDArray[np.float64]) -> Tensor:
    """[rows] the next ids, given logits [rows, vocabulary] and a uniform number [rows] for each that is drawn."""
    chosen = logits.argmax(dim=-1)
    rows = [row for row, sampling in enumerate(samplings) if sampling.temperature > 0]
    if rows:
        kept = probabilities(logits[rows], [samplings[row] for row in rows])
        chosen[rows] = draw(kept, torch.from_numpy(u[rows]).to(logits.device))
    return chosen


def probabilities(logits: Tensor, samplings: Sequence[Sampling]) -> Tensor:
    """[rows, vocabulary] what each id is drawn with, up to a factor: temperature, then top-k, then top-p."""

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=logits.device)[:, None]

    p = (logits.double() / column([sampling.temperature for sampling in samplings])).softmax(dim=-1)
    if all(sampling.top_k is None and sampling.top_p == 1 for sampling in samplings):
        return p
    # Stable: of equally probable ids the lowest are kept.
    ordered, ids = p.sort(dim=-1, descending=True, stable=True)
    ranks = torch.arange(p.shape[-1], device=logits.device)
    ordered = ordered * (ranks < column([sampling.top_k or p.shape[-1] for sampling in samplings]))
    ordered /= ordered.sum(dim=-1, keepdim=True)
    before = ordered.cumsum(dim=-1) - ordered
    top_p = column([sampling.top_p for sampling in samplings])
    ordered = ordered * ((before < top_p) | (top_p == 1))
    return torch.zeros_like(p).scatter(-1, ids, ordered)


def draw(p: Tensor, u: Tensor) -> Tensor:
    """[rows] the ids at which the running sum of p [rows, vocabulary] passes u [rows] of its total.

    In the order of ids, which rounding cannot change as it can that of near-equal probabilities.
    """
    summed = p.cumsum(dim=-1)
    total = summed[:, -1:]
    below = torch.minimum(u[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(summed, below, right=True)[:, 0]
