"""Runs inside vLLM's workers: swaps the weights of the model in place."""

from __future__ import annotations

import contextlib
import ctypes
from typing import Any

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT = 2**30


class SwapExtension:
    """Mixed into vLLM's worker class by name, so that it works under tensor parallelism too."""

    model_runner: Any

    def a360_swap(self, path: str) -> None:
        """Load the weights at `path` into the running model, in place: CUDA graphs stay valid."""
        if not torch.cuda.is_available():
            keep_freed_memory()
        self.model_runner.reload_weights(weights_path=path)
        head = getattr(self.model_runner.get_model(), "lm_head", None)
        method = getattr(head, "quant_method", None)
        # The CPU build packs the head for its matrix kernel when the model is first loaded. With
        # tied embeddings the head is not reloaded, so without this it would stay the old one.
        if method is not None and hasattr(method, "process_weights_after_loading"):
            method.process_weights_after_loading(head)


def keep_freed_memory() -> None:
    """Have glibc keep what a swap frees for the swap that follows, which asks for the same again.

    Fetched from the system anew, page by page, it took as long as all else of a swap on a CPU. Does nothing
    where the C library has no such setting.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, KEPT)
        library.mallopt(M_TRIM_THRESHOLD, 2 * KEPT - 1)
