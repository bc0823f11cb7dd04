"""Runs inside vLLM's workers: swaps the weights of the model in place."""

from __future__ import annotations

from typing import Any


class SwapExtension:
    """Mixed into vLLM's worker class by name, so that it works under tensor parallelism too."""

    model_runner: Any

    def a360_swap(self, path: str) -> None:
        """Load the weights at `path` into the running model."""
        self.model_runner.reload_weights(weights_path=path)
        head = getattr(self.model_runner.get_model(), "lm_head", None)
        method = getattr(head, "quant_method", None)
        # The CPU build packs the head for its matrix kernel when the model is first loaded. With
        # tied embeddings the head is not reloaded, so without this it would stay the old one.
        if method is not None and hasattr(method, "process_weights_after_loading"):
            method.process_weights_after_loading(head)
