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
        ids, p = candidates(logits[rows], [samplings[row] for row in rows])
        places = draw(p, torch.from_numpy(u[rows]).to(logits.device))
        chosen[rows] = ids.gather(-1, places[:, None])[:, 0]
    return chosen


def candidates(logits: Tensor, samplings: Sequence[Sampling]) -> tuple[Tensor, Tensor]:
    """Both [rows, k]: the ids that may be drawn, rising, and what each is drawn with, up to a factor.

    Temperature, then top-k, then top-p. Where every row has a top-k the whole vocabulary is never sorted.
    """

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=logits.device)[:, None]

    size = logits.shape[-1]
    ids = _greatest(logits, min(size, max(sampling.top_k or size for sampling in samplings)))
    scaled = logits.gather(-1, ids).double() / column([sampling.temperature for sampling in samplings])
    p = scaled.softmax(dim=-1)
    if all(sampling.top_k is None and sampling.top_p == 1 for sampling in samplings):
        return ids, p
    # Stable: of equal logits the lowest ids are kept.
    places = scaled.sort(dim=-1, descending=True, stable=True).indices
    ranks = torch.arange(ids.shape[-1], device=logits.device)
    ordered = p.gather(-1, places) * (ranks < column([sampling.top_k or size for sampling in samplings]))
    ordered /= ordered.sum(dim=-1, keepdim=True)
    before = ordered.cumsum(dim=-1) - ordered
    top_p = column([sampling.top_p for sampling in samplings])
    ordered = ordered * ((before < top_p) | (top_p == 1))
    return ids, torch.zeros_like(p).scatter(-1, places, ordered)


def _greatest(logits: Tensor, k: int) -> Tensor:
    """[rows, k] ids of the greatest logits, rising; of equal ones the lowest."""
    if k == logits.shape[-1]:
        return torch.arange(k, device=logits.device).expand(len(logits), k)
    values, ids = logits.topk(k, dim=-1)
    tied = (logits >= values[:, -1:]).sum(dim=-1) > k
    if tied.any():
        ids[tied] = logits[tied].sort(dim=-1, descending=True, stable=True).indices[:, :k]
    return ids.sort(dim=-1).values


def draw(p: Tensor, u: Tensor) -> Tensor:
    """[rows] the places at which the running sum of p [rows, k] passes u [rows] of its total.

    In the order of ids, which rounding cannot change as it can that of near-equal probabilities.
    """
    summed = p.cumsum(dim=-1)
    total = summed[:, -1:]
    below = torch.minimum(u[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(summed, below, right=True)[:, 0]
