"""The torch engine: transformers models, batches of equal length, no padding; `llama` where it fits is faster."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer

from analysis360.engines import STOPPED, Forced, Ids, Likelihood, Prompt, Request
from analysis360.engines.completing import complete
from analysis360.engines.llama import Cache, Llama, fits
from analysis360.engines.shared import knows_branches, score_plain, score_shared
from analysis360.engines.stopping import check_prompts, open_tokenizer
from analysis360.engines.weights import check_same_model, emptied, load_config, load_model
from analysis360.errors import EngineError
from analysis360.series import Checkpoint

BATCH = 256
"""Sequences a forward pass, but for the last of those handed over together."""
LOGITS = 2**28
"""Logits of one scoring pass, at most: a GiB of them in single precision."""


class TorchEngine:
    """Runs on the CPU, or on a GPU where torch finds one."""

    kind = "torch"

    def __init__(
        self,
        dtype: str = "float32",
        device: str | None = None,
        like: Checkpoint | None = None,
        tokenizer: Path | None = None,
        share_prefixes: bool = False,
    ) -> None:
        self.dtype, self._shares = dtype, share_prefixes
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._like = like
        self._first: tuple[Checkpoint, Any] | None = None
        self._model: Any = None
        self._spare: Any = None
        self._reusable = False
        self._fast: Llama | None = None
        self._cache = Cache()
        self._branches: bool | None = None
        """Whether contexts can be shared; of all checkpoints, for they are one model."""
        self._folder = tokenizer
        self._tokenizer: Tokenizer | None = None

    def load(self, checkpoint: Checkpoint) -> None:
        """Load the checkpoint's model; the one before is given back first.

        Where `llama` fits, its packed weights lie beside the model's from the first continuation on.
        """
        self.unload()
        config = load_config(checkpoint)
        if self._first is None and self._like is not None:
            self._first = (self._like, load_config(self._like))
        if self._first is not None:
            check_same_model(checkpoint, config, *self._first)
        spare, self._spare = self._spare, None
        model, self._reusable = load_model(checkpoint, config, self.dtype, spare)
        self._model = model.to(self.device)
        self._first = self._first or (checkpoint, config)
        if self._shares:
            self._knows_branches()  # told by `describe`, which is asked before the first score

    def tensors(self) -> dict[str, torch.Tensor]:
        """The tensors of the checkpoint's files by their names, where the model's weights are just these."""
        if self._model is None or not self._reusable:
            return {}
        return {name: parameter.detach() for name, parameter in self._model.named_parameters()}

    def unload(self) -> None:
        """Give back the weights; what the next ones must be like is still known."""
        if self._model is not None and self._reusable and self.device.type == "cpu":
            self._spare = emptied(self._model)
        self._model = self._fast = None

    @torch.inference_mode()
    def generate(self, ids: Ids, n: int, *, stop: Collection[int] = ()) -> Ids:
        """Greedy continuation [batch, n]; see `Engine.generate`."""
        model = self._ready(ids)
        if fits(model, self.dtype, self.device):
            self._fast = self._fast or Llama(model, self._cache)
            chosen = self._fast.generate(torch.from_numpy(ids.astype(np.int64)), n)
            return cut_at_stop(chosen.numpy().astype(np.int32), stop)
        out = [self._continue(model, ids[i : i + BATCH], n) for i in range(0, len(ids), BATCH)]
        return cut_at_stop(np.concatenate(out) if out else np.empty((0, n), np.int32), stop)

    def _continue(self, model: Any, ids: Ids, n: int) -> Ids:
        tokens = torch.from_numpy(ids.astype(np.int64)).to(self.device)
        chosen = torch.empty((len(ids), n), dtype=torch.int64, device=self.device)
        cache = None
        for step in range(n):
            result = model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache = result.past_key_values
            tokens = result.logits[:, -1].argmax(dim=-1, keepdim=True)
            chosen[:, step] = tokens[:, 0]
        return chosen.cpu().numpy().astype(np.int32)

    @torch.inference_mode()
    def forced(self, ids: Ids, start: int) -> Forced:
        """Teacher-forced scores; see `Engine.forced`."""
        model = self._ready(ids)
        if not len(ids):
            empty = np.empty((0, ids.shape[1] - start), np.float32)
            return Forced(empty, empty.astype(bool), empty)
        each = (ids.shape[1] - start) * model.config.vocab_size
        batch = max(1, min(BATCH, LOGITS // max(each, 1)))
        parts = [self._score(model, ids[i : i + batch], start) for i in range(0, len(ids), batch)]
        return Forced(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))

    def _score(self, model: Any, ids: Ids, start: int) -> tuple[Any, Any, Any]:
        tokens = torch.from_numpy(ids.astype(np.int64)).to(self.device)
        kept = tokens.shape[1] - start
        logits = model(input_ids=tokens[:, :-1], use_cache=False, logits_to_keep=kept).logits.float()
        target = tokens[:, start:]
        given = logits.gather(-1, target[..., None])[..., 0]
        logprob = given - logits.logsumexp(dim=-1)
        hit = logits.argmax(dim=-1) == target  # of equal logits the first, as `generate` chooses
        best = logits.topk(2, dim=-1).values
        gap = best[..., 0] - best[..., 1]
        return logprob.cpu().numpy(), hit.cpu().numpy(), gap.cpu().numpy()

    @torch.inference_mode()
    def score(self, requests: Sequence[Request]) -> list[Likelihood]:
        """Likelihoods; see `Engine.score`."""
        score = score_shared if self._knows_branches() else score_plain
        return score(self._ready(), self.device, requests)

    @torch.inference_mode()
    def _knows_branches(self) -> bool:
        if self._branches is None:
            self._branches = knows_branches(self._ready(), self.device, self.dtype)
        return self._branches

    @torch.inference_mode()
    def complete(self, prompts: Sequence[Prompt]) -> list[tuple[int, ...]]:
        """Completions; see `Engine.complete`."""
        model = self._ready()
        check_prompts(prompts, self._folder)
        if self._tokenizer is None and self._folder is not None and any(prompt.stop for prompt in prompts):
            self._tokenizer = open_tokenizer(self._folder).backend_tokenizer
        return complete(model, prompts, self._tokenizer)

    def describe(self) -> dict[str, str]:
        """Versions, device and threads."""
        device = torch.cuda.get_device_name() if self.device.type == "cuda" else "cpu"
        lean = self._model is not None and fits(self._model, self.dtype, self.device)
        how = ", lean Llama" if lean else ""
        how += ", contexts not shared" if self._branches is False else ""
        return {
            "engine": f"torch {torch.__version__}, transformers {transformers.__version__}{how}",
            "device": device,
            "threads": str(torch.get_num_threads()),
        }

    def close(self) -> None:
        """Drop the model."""
        self._model = self._spare = self._fast = self._first = None
        self._cache = Cache()

    def _ready(self, ids: Ids | None = None) -> Any:
        if self._model is None:
            raise EngineError(
                "no checkpoint is loaded: call load(checkpoint) first, and again after a failed load"
            )
        if ids is not None and ids.ndim != 2:
            raise EngineError(f"expected ids of shape [batch, length], found {list(ids.shape)}")
        return self._model


def cut_at_stop(ids: Ids, stop: Collection[int]) -> Ids:
    """Replace what follows the first stop id of each row of [batch, n] by STOPPED."""
    if not stop:
        return ids
    hit = np.isin(ids, list(stop))
    after = (np.cumsum(hit, axis=1) - hit) > 0
    return np.where(after, np.int32(STOPPED), ids)
