"""The torch engine: transformers models, static batches of equal length, a KV cache, no padding."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

from analysis360.engines import STOPPED, Forced, Ids
from analysis360.engines.weights import check_config, check_shapes, iterate
from analysis360.errors import CheckpointError, EngineError
from analysis360.series import Checkpoint

BATCH = 256
"""Sequences a forward pass; all batches but a unit's last are this long."""


class TorchEngine:
    """Runs on the CPU, or on a GPU where torch finds one."""

    kind = "torch"

    def __init__(self, dtype: str = "float32", device: str | None = None, threads: int | None = None) -> None:
        self.dtype = dtype
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if threads:
            torch.set_num_threads(threads)
        self._first: Checkpoint | None = None
        self._loaded: Checkpoint | None = None
        self._model: Any = None

    def load(self, checkpoint: Checkpoint) -> None:
        """Copy the weights into the one model of the series, every tensor checked first."""
        self._loaded = None  # until the last tensor is in place the model is neither
        if self._first is not None:
            check_config(checkpoint, self._first)
        if self._model is None:
            self._model = _empty_model(checkpoint, self.dtype).to(self.device)
            self._first = checkpoint
        tied = frozenset(getattr(self._model, "all_tied_weights_keys", None) or {})
        targets = dict(self._model.named_parameters(remove_duplicate=False))
        targets |= {name: tensor for name, tensor in self._model.state_dict().items() if name not in targets}
        check_shapes(checkpoint, {name: tuple(tensor.shape) for name, tensor in targets.items()}, tied)
        with torch.no_grad():
            for name, tensor in iterate(checkpoint):
                if name in targets:
                    targets[name].copy_(tensor)
        self._loaded = checkpoint

    @torch.inference_mode()
    def generate(self, ids: Ids, n: int, *, stop: Collection[int] = ()) -> Ids:
        """Greedy continuation [batch, n]; see `Engine.generate`."""
        model = self._ready(ids)
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
        parts = [self._score(model, ids[i : i + BATCH], start) for i in range(0, len(ids), BATCH)]
        return Forced(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))

    def _score(self, model: Any, ids: Ids, start: int) -> tuple[Any, Any, Any]:
        tokens = torch.from_numpy(ids.astype(np.int64)).to(self.device)
        kept = tokens.shape[1] - start
        logits = model(input_ids=tokens[:, :-1], use_cache=False, logits_to_keep=kept).logits.float()
        target = tokens[:, start:]
        best = logits.topk(2, dim=-1)
        given = logits.gather(-1, target[..., None])[..., 0]
        logprob = given - logits.logsumexp(dim=-1)
        hit = best.indices[..., 0] == target
        gap = best.values[..., 0] - best.values[..., 1]
        return logprob.cpu().numpy(), hit.cpu().numpy(), gap.cpu().numpy()

    def describe(self) -> dict[str, str]:
        """Versions, device and threads."""
        device = torch.cuda.get_device_name() if self.device.type == "cuda" else "cpu"
        return {
            "engine": f"torch {torch.__version__}, transformers {transformers.__version__}",
            "device": device,
            "threads": str(torch.get_num_threads()),
        }

    def close(self) -> None:
        """Drop the model."""
        self._model = self._first = self._loaded = None

    def _ready(self, ids: Ids) -> Any:
        if self._loaded is None:
            raise EngineError(
                "no checkpoint is loaded: call load(checkpoint) first, and again after a failed load"
            )
        if ids.ndim != 2:
            raise EngineError(f"expected ids of shape [batch, length], found {list(ids.shape)}")
        return self._model


def cut_at_stop(ids: Ids, stop: Collection[int]) -> Ids:
    """Replace what follows the first stop id of each row of [batch, n] by STOPPED."""
    if not stop:
        return ids
    hit = np.isin(ids, list(stop))
    after = (np.cumsum(hit, axis=1) - hit) > 0
    return np.where(after, np.int32(STOPPED), ids)


def _empty_model(checkpoint: Checkpoint, dtype: str) -> Any:
    try:
        config = AutoConfig.from_pretrained(checkpoint.path, local_files_only=True, trust_remote_code=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = AutoModelForCausalLM.from_config(
                config, dtype=getattr(torch, dtype), trust_remote_code=False
            )
    except (ValueError, KeyError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"checkpoint {checkpoint.name}: no model for its config.json: {reason}"
        ) from None
    return model.eval()
