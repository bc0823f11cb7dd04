"""Likelihoods by a transformers model, each context that requests share computed once (see `trees`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from analysis360.engines import Likelihood, Request
from analysis360.engines.trees import Pass, passes

BUDGET = {"cpu": 512, "cuda": 4096}
"""Ids a pass: enough to keep the machine busy, and few enough that masks and logits stay small."""
LOGITS = 2**28
"""Logits of a pass, at most: a GiB of them in single precision."""
PROBES = (Request((5, 7, 2, 9), (3, 8)), Request((5, 7, 2, 9), (4,)), Request((5, 7, 6), (1, 2, 3)))
"""A tree that branches twice, of ids that every vocabulary has."""
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.02}
"""Largest difference (nats) of a probe from its plain computation: rounding, and no more."""


def score_shared(
    model: Any, device: torch.device, requests: Sequence[Request], budget: int | None = None
) -> list[Likelihood]:
    """Answers to all requests, in their order, from passes of `budget` ids."""
    budget = budget or max(1, min(BUDGET[device.type], LOGITS // model.config.vocab_size))
    logprob, greedy = np.zeros(len(requests)), np.ones(len(requests), bool)
    cache = DynamicCache()
    for one in passes(requests, budget):
        if not one.held:
            cache = DynamicCache()
        elif surplus := cache.get_seq_length() - one.held:
            cache.crop(-surplus)
        if not len(one.read):
            _forward(model, device, one, cache, np.array([len(one.ids) - 1]))
            continue
        places, row = np.unique(one.read, return_inverse=True)
        logits = _forward(model, device, one, cache, places)
        found, best = _judged(logits, row, one.target)
        np.add.at(logprob, one.request, found)
        np.logical_and.at(greedy, one.request, best)
    return [Likelihood(float(value), bool(all_)) for value, all_ in zip(logprob, greedy, strict=True)]


def score_plain(model: Any, device: torch.device, requests: Sequence[Request]) -> list[Likelihood]:
    """The same, each request alone and whole: for models that know no branches."""
    answers = []
    for request in requests:
        ids = torch.tensor([request.context + request.continuation], device=device)
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits[0, len(request.context) - 1 :]
        row, target = np.arange(len(logits)), np.array(request.continuation)
        found, best = _judged(logits, row, target)
        answers.append(Likelihood(float(found.sum()), bool(best.all())))
    return answers


def knows_branches(model: Any, device: torch.device, dtype: str) -> bool:
    """Whether the model computes branches side by side as it computes each alone.

    Tried on a few ids: models with windows, with a state instead of a cache, or with code of their own may not.
    """
    if _windowed(model.config):
        return False
    plain = score_plain(model, device, PROBES)
    try:  # in one pass, and in several that go on from one another
        shared = [*score_shared(model, device, PROBES), *score_shared(model, device, PROBES, 3)]
    except Exception:  # whatever code of its own makes of masks and caches that it was not written for
        return False
    worst = max(abs(one.logprob - other.logprob) for one, other in zip(plain * 2, shared, strict=True))
    return worst <= TOLERANCE[dtype]


def _windowed(config: Any) -> bool:
    """Whether some layer forgets what is far back, which a probe is too short to show."""
    kinds = getattr(config, "layer_types", None) or []
    window = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    return bool(window or getattr(config, "attention_chunk_size", None)) or any(
        kind != "full_attention" for kind in kinds
    )


def _forward(model: Any, device: torch.device, one: Pass, cache: DynamicCache, places: Any) -> torch.Tensor:
    """[places, vocabulary] logits; what the ids leave behind is added to the cache."""
    ids, depth, kept = (torch.from_numpy(x).to(device)[None] for x in (one.ids, one.depth, places))
    mask = None if one.straight else _mask(one, model.dtype, device)
    given = {"input_ids": ids, "position_ids": depth, "attention_mask": mask, "past_key_values": cache}
    logits: torch.Tensor = model(**given, use_cache=True, logits_to_keep=kept[0]).logits[0]
    return logits


def _mask(one: Pass, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """[1, 1, n, held + n] 0 where a token sees another and the least number where it does not."""
    place = torch.arange(len(one.ids), device=device)
    until = torch.from_numpy(one.until).to(device)
    hidden = (place[None] > place[:, None]) | (place[:, None] >= until[None])
    mask = torch.zeros((len(place), one.held + len(place)), dtype=dtype, device=device)
    mask[:, one.held :].masked_fill_(hidden, torch.finfo(dtype).min)
    return mask[None, None]


def _judged(logits: torch.Tensor, row: Any, target: Any) -> tuple[Any, Any]:
    """[m] log-probability of each target at its row of the logits, and whether it is the argmax."""
    logits = logits.float()
    rows, targets = (torch.from_numpy(np.asarray(x)).to(logits.device) for x in (row, target))
    found = logits[rows, targets] - logits.logsumexp(dim=-1)[rows]
    best = logits.argmax(dim=-1)[rows] == targets
    return found.double().cpu().numpy(), best.cpu().numpy()
