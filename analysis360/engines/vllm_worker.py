"""Runs inside vLLM's workers: swaps the weights of the running model."""

from __future__ import annotations

import contextlib
import ctypes
from typing import Any

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT = 2**30
HANDED: dict[str, torch.Tensor] = {}
"""Tensors of the checkpoint that is swapped in, where this process has them already; otherwise its files are read."""


class SwapExtension:
    """Mixed into vLLM's worker class by name, so that it works under tensor parallelism too."""

    model_runner: Any

    def a360_swap(self, path: str) -> None:
        """Load the weights at `path` into the running model."""
        if torch.cuda.is_available():
            self.model_runner.reload_weights(weights_path=path)  # in place: CUDA graphs stay valid
        else:
            keep_freed_memory()
            load_as_at_start(self.model_runner.get_model(), self.model_runner.vllm_config, path)


def load_as_at_start(model: Any, config: Any, path: str) -> None:
    """Empty the packed layers, load and pack: less bookkeeping than `reload_weights`, and a copy fewer.

    That one also leaves a tied head as it was packed before. The old weights go before the new ones come,
    so it takes no more memory than a start.
    """
    from vllm.model_executor.model_loader import get_model_loader
    from vllm.model_executor.model_loader.reload import layerwise, meta
    from vllm.model_executor.model_loader.utils import process_weights_after_loading

    for layer in model.modules():
        if hasattr(layer, "cpu_linear"):
            del layer.cpu_linear  # the packed weight
            if not layer.weight.numel():
                info = layerwise.get_layerwise_info(layer)  # what the layer was before it was packed
                meta.restore_layer_on_meta(layer, info)
                meta.materialize_layer(layer, info)
    config.model_config.model = path
    loader = get_model_loader(config.load_config)
    model.load_weights(HANDED.items() if HANDED else loader.get_all_weights(config.model_config, model))
    process_weights_after_loading(model, config.model_config, torch.device("cpu"))


def keep_freed_memory() -> None:
    """Have glibc keep what a swap frees for the swap that follows, which asks for the same again.

    Fetched from the system anew, page by page, it took as long as all else of a swap on a CPU. Does nothing
    where the C library has no such setting.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, KEPT)
        library.mallopt(M_TRIM_THRESHOLD, 2 * KEPT - 1)
