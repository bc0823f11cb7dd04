"""What is recorded of every step: `metrics.jsonl`, and trackers where they are asked for."""

import json
import math
import os
import resource
import statistics
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig

from training.config import Loop, Recipe
from training.distributed import Processes
from training.errors import TrainingError
from training.files import write_aside
from training.tracking import Tracker

__all__ = ["Meter", "Metrics", "flops_per_token", "peak_flops", "peak_memory_mb", "spike"]

WINDOW, LEAST = 100, 20
"""Steps that a loss is compared with, and how many of them it takes."""
PATIENCE = 60.0
"""Seconds at least between two measurements of a peak: none of them costs more than a step or two."""
DENSE_BF16 = {"H200": 989e12, "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "A100": 312e12}
"""Peak FLOP/s of matrix products in bfloat16, without sparsity, from the maker's data sheets; the first that fits."""


class Metrics:
    """The file of metrics, in the process that writes it; a run that goes on takes up after `lines` lines."""

    def __init__(self, path: Path, lines: int, trackers: Sequence[Tracker] = ()) -> None:
        self._path, self._trackers = path, trackers
        self._open(lines)

    def _open(self, lines: int) -> None:
        path = self._path
        kept = path.read_text("utf-8").splitlines(keepends=True)[:lines] if path.exists() else []
        if len(kept) < lines:
            fix = "put it back, or train in another folder"
            raise TrainingError(path, expected=f"{lines} lines at least", found=str(len(kept)), fix=fix)
        write_aside(path, "".join(kept).encode())
        self._recent: deque[float] = deque(maxlen=WINDOW)
        for line in map(json.loads, kept[-2 * WINDOW :]):
            if "event" not in line:
                self._recent.append(line["loss"])
        self._file = path.open("a", encoding="utf-8")

    def step(self, line: dict[str, Any]) -> None:
        """Record a step; `spike` is added: how far its loss stands out from those before it."""
        line["spike"] = spike(line["loss"], self._recent)
        self._recent.append(line["loss"])
        self._write(line)
        for tracker in self._trackers:
            tracker.log(line, line["step"])

    def event(self, line: dict[str, Any]) -> None:
        """Record something that is no step."""
        self._write(line)
        for tracker in self._trackers:
            tracker.log({f"event/{line['event']}": line["chunk"]}, line["step"])

    def back_to(self, lines: int) -> None:
        """Take back all but the first `lines` lines."""
        self._file.close()
        self._open(lines)

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """End the file and the trackers."""
        self._file.close()
        for tracker in self._trackers:
            tracker.close()


class Meter:
    """Times steps: throughput, memory, and how near the machine's peak they come.

    A peak measured while other programs had the machine is too low. A step that exceeds it says so: it is
    measured again, the higher one holds from then on, and a step above that too has no utilisation (None).
    """

    def __init__(self, config: LlamaConfig, recipe: Recipe, here: Processes) -> None:
        self._here, self._loop = here, recipe.loop
        self._flops = flops_per_token(config, recipe.mix.row_tokens - 1)
        self._peak = peak_flops(recipe.loop, here)
        self._measured = -math.inf
        self._began = 0.0

    def start(self) -> None:
        """A step begins with the reading of its rows; one that follows another begins where that ended."""
        self._began = time.perf_counter()

    def stop(self, targets: int) -> dict[str, float | None]:
        """What a step on so many targets, over all processes, has to say of the machine; the next one begins."""
        now = time.perf_counter()
        seconds, self._began = now - self._began, now
        speed = targets / seconds
        return {
            "seconds": round(seconds, 4),
            "tokens_per_second": round(speed, 1),
            "mfu": self._utilisation(speed * self._flops),
            "memory_mb": peak_memory_mb(self._here.device),
        }

    def _utilisation(self, flops: float) -> float | None:
        """The share of the peak that so many FLOP/s are; None: the peak is not known."""
        if self._peak and flops > self._peak and self._here.device.type == "cpu":
            self._measure_again()
        return round(flops / self._peak, 4) if self._peak and flops <= self._peak else None

    def _measure_again(self) -> None:
        if time.perf_counter() - self._measured < PATIENCE:
            return
        self._peak = max(self._peak or 0.0, peak_flops(self._loop, self._here) or 0.0)
        self._began = self._measured = time.perf_counter()


def spike(loss: float, before: Sequence[float] | deque[float]) -> float | None:
    """Robust standard deviations (1.4826 x MAD) of the losses before it above their median; None: too few."""
    if len(before) < LEAST:
        return None
    middle = statistics.median(before)
    spread = 1.4826 * statistics.median(abs(value - middle) for value in before)
    return round((loss - middle) / spread, 2) if spread else None


def flops_per_token(config: LlamaConfig, context: int) -> float:
    """FLOPs of training on one token, forward and backward: 6 N + 12 layers x width x context.

    N are the weights that multiply: all but the embeddings. As PaLM counts them (Chowdhery et al. 2022,
    appendix B), without what is computed again to save memory.
    """
    hidden, heads = int(config.hidden_size), int(config.num_attention_heads)
    kv_width = hidden // heads * int(config.num_key_value_heads)
    block = 2 * hidden * hidden + 2 * hidden * kv_width + 3 * hidden * int(config.intermediate_size)
    layers, vocabulary = int(config.num_hidden_layers), int(config.vocab_size)
    weights = layers * block + vocabulary * hidden
    return 6.0 * weights + 12.0 * layers * hidden * context


def peak_flops(loop: Loop, here: Processes) -> float | None:
    """FLOP/s of matrix products at the most, of all processes together; None: not known.

    From data sheets on GPUs. On a CPU measured, with all the threads of the loop: the processes of one machine
    share it.
    """
    if here.device.type == "cuda":
        name = torch.cuda.get_device_name(here.device)
        known = [peak * here.world for model, peak in DENSE_BF16.items() if model in name]
        return known[0] if known and loop.compute_dtype == "bfloat16" else None
    threads = torch.get_num_threads()
    torch.set_num_threads(loop.threads)
    dtype = getattr(torch, loop.compute_dtype)
    size, best = 1024, math.inf
    left, right = torch.ones(size, size, dtype=dtype), torch.ones(size, size, dtype=dtype)
    for _ in range(6):
        start = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - start)
    torch.set_num_threads(threads)
    return 2.0 * size**3 / best * (here.world // int(os.environ.get("LOCAL_WORLD_SIZE", here.world)))


def peak_memory_mb(device: torch.device) -> float:
    """The most memory this process held, MB: of the GPU, or resident."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 1e6, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, 1)
