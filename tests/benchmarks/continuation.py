"""Continuation of 32 tokens from 32: both engines, the published way, and the limit, side by side in one run.

    python tests/benchmarks/continuation.py [--checkpoint FOLDER] [--sequences 512] [--repeats 3]

Every figure is a ratio to the limit and to the peer, measured in the same run: each contestant has a
process of its own, they take turns, and the median of the repeats counts. The limit is the time of
`torch.nn.functional.linear` over the model's weight shapes alone, at the whole batch, logits counted
only where a token is chosen. `others` is the share of the machine's CPU that other processes took.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

K = L = 32
CONTESTANTS = ("limit", "vllm", "torch", "generate, batch 32")


def prompts(vocabulary: int, n: int) -> Any:
    """[n, K] ids; the cost does not depend on which."""
    import numpy as np

    return np.random.default_rng(0).integers(1, vocabulary, (n, K)).astype(np.int32)


def engine(kind: str, folder: Path, n: int) -> Callable[[], object]:
    """Ours: one loaded engine."""
    from analysis360.engines import open_engine
    from analysis360.places import LocalFolder
    from analysis360.series import Checkpoint

    checkpoint = Checkpoint("benchmark", 0, LocalFolder(folder))
    opened = open_engine(kind, dtype="float32", max_tokens=K + L)
    opened.load(checkpoint)
    ids = prompts(checkpoint.vocabulary, n)
    return lambda: opened.generate(ids, L)


def published(folder: Path, n: int) -> Callable[[], object]:
    """The peer: transformers `generate`, greedy, batches of 32, the model loaded once."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = torch.from_numpy(prompts(model.config.vocab_size, n)).long()
    options: dict[str, Any] = {"min_length": K, "max_new_tokens": L, "do_sample": False, "num_beams": 1}
    options |= {"pad_token_id": 0, "eos_token_id": -1}

    def run() -> None:
        with torch.inference_mode():
            for i in range(0, n, 32):
                model.generate(ids[i : i + 32], attention_mask=torch.ones_like(ids[i : i + 32]), **options)

    return run


def limit(folder: Path, n: int) -> Callable[[], object]:
    """The matrix products that cannot be left out: prompt once, then one token at a time."""
    import torch
    from safetensors import safe_open

    with safe_open(str(folder / "model.safetensors"), framework="pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    inner = [
        w for name, w in weights.items() if w.ndim == 2 and "embed" not in name and "lm_head" not in name
    ]
    head = weights.get("lm_head.weight", weights["model.embed_tokens.weight"])

    def passes(weight: Any, rows: int, times: int) -> None:
        x = torch.zeros(rows, weight.shape[1])
        for _ in range(times):
            torch.nn.functional.linear(x, weight)

    def run() -> None:
        with torch.inference_mode():
            for weight in inner:
                passes(weight, n * K, 1)
                passes(weight, n, L - 1)
            passes(head, n, L)

    return run


def contestant(name: str, folder: Path, n: int) -> Callable[[], object]:
    """The named contestant, loaded and ready."""
    if name == "limit":
        return limit(folder, n)
    return published(folder, n) if name.startswith("generate") else engine(name, folder, n)


def serve(name: str, folder: Path, n: int) -> None:
    """A contestant's process: for each line read, run once and print seconds and CPU of others."""
    run = contestant(name, folder, n)
    run()  # warm
    print("ready", flush=True)
    for _ in sys.stdin:
        busy, mine, started = busy_seconds(), time.process_time(), time.perf_counter()
        run()
        seconds, own = time.perf_counter() - started, time.process_time() - mine
        others = max(0.0, busy_seconds() - busy - own) / (seconds * (os.cpu_count() or 1))
        print(json.dumps({"seconds": seconds, "others": others}), flush=True)


def busy_seconds() -> float:
    """CPU seconds that all processes of the machine have used; 0 where /proc/stat is not there."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    user, nice, system, _, _, irq, soft, *_ = map(int, stat.read_text().split("\n")[0].split()[1:])
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")


def measure(folder: Path, n: int, repeats: int) -> dict[str, list[dict[str, float]]]:
    """Let the contestants take turns."""
    command = [sys.executable, __file__, "--checkpoint", str(folder), "--sequences", str(n), "--serve"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}  # idle contestants must not spin
    running: dict[str, subprocess.Popen[str]] = {}
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in CONTESTANTS}
    try:
        for name in CONTESTANTS:
            running[name] = subprocess.Popen([*command, name], env=environment, **pipes)
            wait_for(running[name], "ready")
        for _ in range(repeats):
            for name, process in running.items():
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
                taken[name].append(json.loads(wait_for(process, "{")))
    finally:
        for process in running.values():
            process.kill()
    return taken


def wait_for(process: subprocess.Popen[str], start: str) -> str:
    """The next line of a contestant that starts so."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(start):
            return line
    raise SystemExit(f"{process.args} stopped with exit code {process.wait()}")


def report(taken: dict[str, list[dict[str, float]]], n: int) -> str:
    """A table: sequences a second, ratio to the limit and to the published way, spread, others."""
    medians = {name: statistics.median(run["seconds"] for run in runs) for name, runs in taken.items()}
    lines = [f"{'':20}{'seq/s':>8}{'of limit':>10}{'of peer':>9}{'spread':>9}{'others':>8}"]
    for name, runs in taken.items():
        seconds = [run["seconds"] for run in runs]
        spread = (max(seconds) - min(seconds)) / medians[name]
        others = max(run["others"] for run in runs)
        ratio, peer = medians["limit"] / medians[name], medians[CONTESTANTS[-1]] / medians[name]
        lines.append(
            f"{name:20}{n / medians[name]:8.0f}{ratio:10.0%}{peer:8.1f}x{spread:9.0%}{others:8.0%}"
            + ("  disturbed" if others > 0.1 else "")
        )
    return "\n".join(lines)


def random_checkpoint(folder: Path) -> Path:
    """A Llama of the demo series' shape with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 6, "num_key_value_heads": 6}
    config = LlamaConfig(vocab_size=2048, intermediate_size=512, max_position_embeddings=256, **shape)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, help="folder with config.json and model.safetensors")
    parser.add_argument("--sequences", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    if parsed.serve:
        serve(parsed.serve, parsed.checkpoint, parsed.sequences)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = parsed.checkpoint or random_checkpoint(Path(scratch))
        taken = measure(folder, parsed.sequences, parsed.repeats)
    print(f"{parsed.sequences} sequences, k = l = {K}, float32, median of {parsed.repeats}; {machine()}")
    print(report(taken, parsed.sequences))


def machine() -> str:
    """What this ran on."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":")[1].strip()
            for line in info.read_text().splitlines()
            if line.startswith("model name")
        ]
        model = names[0] if names else model
    return f"{os.cpu_count()} cores of {model}, Python {platform.python_version()}"


if __name__ == "__main__":
    main()
